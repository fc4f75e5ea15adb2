"""Where the sound of a WAV, AIFF, W64, CAF, AU or NIST file begins and where it should end.

libsndfile cuts a header's promise down to what is there and never looks behind the end. So the
headers are read here too: for what is missing, and for what follows. Must not know any codec.
"""

from collections.abc import Iterator
from typing import NamedTuple

from omni.audio.source import WHOLE, Part, Source, Stretch, Window, cut_off
from omni.errors import OmniError

# A header written into a pipe can't know the length: 0, the largest number, or one near 2 GB (sox,
# arecord), in AIFF near 0x7F000000 (sox), now and then less the header.
_UNKNOWN_32 = ((0, 0), (0x7EFFFF00, 0x7F00FFFF), (0x7FFF0000, 0x8000FFFF), (0xFFFF0000, 0xFFFFFFFF))
_JUNK_BYTES = 4096  # less than this behind the end is no sound: an eighth of a second of 16 bits
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICS")
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
HEADS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", b".snd", b"dns.", b"NIST", b"riff")


class _Chunk(NamedTuple):
    """`size` bytes from `begin`; `following` is where the next chunk begins."""

    name: bytes
    begin: int
    size: int
    following: int


class _Sound(NamedTuple):
    """Where the samples of one header lie; `size` is None where the header doesn't say.

    size_at: position, width and byte order of the size, for it to be put right.
    """

    begin: int
    size: int | None
    end: int
    size_at: tuple[int, int, str] | None = None


def chunk_parts(source: Source) -> list[Part]:
    """The recordings that lie behind one another in a file of chunks.

    Raises:
        OmniError: the file ends before its sound does, or bytes follow that no header names.
    """
    window = Window(source)
    begin, parts = 0, []
    while True:
        sound = _sound(window, begin)
        if sound is None:  # the decoder says what is wrong with it
            return [WHOLE]
        if sound.size is None:
            end = source.size
        else:
            _check_cut(sound, source)
            end = _end_of_part(window, sound, source.where)
        parts.append(_part(sound, Stretch(begin, end), source))
        if end >= source.size:
            return parts
        begin = end


def _sound(window: Window, begin: int) -> _Sound | None:
    head = window.at(begin, 16)
    if head[:4] in (b".snd", b"dns."):
        return _au(window, begin, "big" if head[:4] == b".snd" else "little")
    if head[:7] == b"NIST_1A":
        return _nist(window, begin)
    width, order = _size_field(head)
    ds64: int | None = None  # where an RF64 file says how long its sound is
    for chunk in _chunks(window, begin):
        if chunk.name == b"ds64":
            ds64 = chunk.begin + 8
        if chunk.name not in (b"data", b"SSND", b"BODY"):
            continue
        size, following = chunk.size, chunk.following
        size_at = (chunk.begin - 4, 4, order) if width == 4 else None
        if ds64 is not None and size == 0xFFFFFFFF:
            width, size_at = 8, (ds64, 8, "little")
            size = int.from_bytes(window.at(ds64, 8), "little")
            following = chunk.begin + size + size % 2
        known = None if _unknown(size, width) else size
        return _Sound(chunk.begin, known, following, size_at)
    return None


def _chunks(window: Window, begin: int) -> Iterator[_Chunk]:
    """The chunks of a RIFF, RF64, FORM, W64 or CAF file that begins there."""
    head = window.at(begin, 16)
    width, order = _size_field(head)
    wide = head == _W64_RIFF
    at = begin + (40 if wide else 8 if head[:4] == b"caff" else 12)
    name_bytes = 16 if wide else 4
    while True:
        header = window.at(at, name_bytes + width)
        if len(header) < name_bytes + width:
            return
        size = int.from_bytes(header[name_bytes:], order)  # type: ignore[arg-type]
        data = at + len(header)
        if wide:
            size -= len(header)  # W64 counts the header in, and aligns to 8
            if size < 0:
                return
        align = 8 if wide else 1 if head[:4] == b"caff" else 2
        at = data + size + -size % align
        yield _Chunk(header[:4], data, size, at)


def _size_field(head: bytes) -> tuple[int, str]:
    """Bytes and byte order of a chunk's size."""
    if head == _W64_RIFF:
        return 8, "little"
    if head[:4] == b"caff":
        return 8, "big"
    return 4, "big" if head[:4] in (b"FORM", b"RIFX") else "little"


def _au(window: Window, begin: int, order: str) -> _Sound:
    offset, size = (
        int.from_bytes(window.at(begin + at, 4), order)  # type: ignore[arg-type]
        for at in (4, 8)
    )
    data = begin + offset
    known = None if _unknown(size, 4) else size
    return _Sound(data, known, data + size, (begin + 8, 4, order))


def _nist(window: Window, begin: int) -> _Sound | None:
    """A text header: its own size in the second line, then `name -type value` a line."""
    text = window.at(begin, 1 << 16).decode("latin-1")
    lines = text.split("\n")
    if len(lines) < 2 or not lines[1].strip().isdecimal():
        return None
    fields: dict[str, str] = {}
    for line in text[: int(lines[1])].split("\n"):
        words = line.split(None, 2)
        if len(words) == 3:
            fields[words[0]] = words[2].strip()
    size = 1
    for name in ("sample_count", "channel_count", "sample_n_bytes"):
        if not fields.get(name, "").isdecimal():
            return None
        size *= int(fields[name])
    data = begin + int(lines[1])
    return _Sound(data, size or None, data + size)


def _unknown(size: int, width: int) -> bool:
    if width == 8:
        return size == 0 or size >= 1 << 62
    return any(low <= size <= high for low, high in _UNKNOWN_32)


def _check_cut(sound: _Sound, source: Source) -> None:
    """Raise where the file ends before the samples do."""
    have = source.size - sound.begin
    assert sound.size is not None
    # Some writers count the header in: nothing is missing then.
    if have < sound.size and sound.size not in (source.size, source.size - 8):
        raise cut_off(max(have, 0), sound.size, "bytes", source.where)


def _end_of_part(window: Window, sound: _Sound, where: str) -> int:
    """Where another recording begins, or the file's end.

    Raises:
        OmniError: more bytes follow than a tag or padding would need.
    """
    at = min(sound.end, window.size)
    assert sound.size is not None
    unpadded = sound.begin + sound.size
    if unpadded < at and window.at(unpadded, 4) in HEADS:  # joined behind an odd length
        at = unpadded
    while at + 8 <= window.size:
        head = window.at(at, 16)
        unpadded = at + 16 - len(head.lstrip(b"\0"))  # some writers fill up the last chunk
        if window.at(unpadded, 4) in HEADS and _sound(window, unpadded) is not None:
            return unpadded
        following = _after_chunk(window, at, head)
        if following is None:
            break
        at = following
    rest = window.size - at
    if rest > _JUNK_BYTES and not window.at(at, 8).startswith(_TAGS) and _any_set(window, at):
        raise OmniError(
            f"{rest} bytes lie behind the sound that the header names",
            where,
            "its length is wrong: write the file anew",
        )
    return window.size


def _after_chunk(window: Window, at: int, head: bytes) -> int | None:
    """Where the chunk at `at` ends; None if there is none."""
    first = window.at(0, 16)
    if first[:4] in (b".snd", b"dns.", b"NIST"):
        return None
    if first == _W64_RIFF:
        size = int.from_bytes(window.at(at + 16, 8), "little")
        after = at + size + -size % 8
        return after if size >= 24 and after <= window.size else None
    width, order = _size_field(first)
    size = int.from_bytes(window.at(at + 4, width), order)  # type: ignore[arg-type]
    after = at + 4 + width + size
    if not all(0x20 <= byte < 0x7F for byte in head[:4]) or after > window.size:
        return None
    return min(after + (size % 2 if width == 4 else 0), window.size)


def _any_set(window: Window, at: int) -> bool:
    while at < window.size:
        block = window.at(at, 1 << 16)
        if block.strip(b"\0"):
            return True
        at += len(block)
    return False


def _part(sound: _Sound, stretch: Stretch, source: Source) -> Part:
    """The stretch, with the length put in where the header has none."""
    if sound.size is None and sound.size_at is not None:
        at, width, order = sound.size_at
        true = stretch.end - sound.begin
        if 0 <= true < 1 << 8 * width:
            field = true.to_bytes(width, order)  # type: ignore[arg-type]
            return Part((Stretch(stretch.begin, at), field, Stretch(at + width, stretch.end)))
    if stretch == Stretch(0, source.size):
        return WHOLE
    return Part((stretch,))
