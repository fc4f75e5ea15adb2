"""How many samples a FLAC file really holds, whatever its header says.

The header's total may be 0 (written into a pipe), too small, or that of the first of several files.
libsndfile believes it. Must not know how frames are coded: only their headers are read.
"""

from typing import NamedTuple

from omni.audio.source import WHOLE, Part, Source, Stretch, Window, cut_off

_STREAMINFO = 34  # bytes of the first metadata block
_MARKS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # and a STREAMINFO block's header
_TAIL = 1 << 17  # where the last frame's header is looked for, if the header names no largest frame
# Samples of a frame by the code in its header; 6 and 7 are followed by the number.
_BLOCK_SIZES = {
    1: 192,
    **{c: 576 << c - 2 for c in range(2, 6)},
    **{c: 1 << c for c in range(8, 16)},
}
_RATE_BYTES = {12: 1, 13: 2, 14: 2}


class _Info(NamedTuple):
    """What STREAMINFO says, and where: `total` samples at bit 4 of byte `total_at`."""

    total: int
    total_at: int
    block_size: int
    largest_frame: int
    frames_at: int


def flac_parts(source: Source, begin: int, thorough: bool) -> list[Part]:
    """A part for each FLAC file that lies behind another; mostly the whole file as it is.

    Args:
        begin: where the mark `fLaC` stands.
        thorough: look through the whole file for others; else only where the last frame does not
            bear out the header.

    Raises:
        OmniError: the last frame ends before the header's total.
    """
    window = Window(source)
    info = _info(window, begin)
    if info is None:
        return [WHOLE]
    last = _last_sample(window, info, source.size)
    holds = info.total > 0 and info.total == last
    begins = [begin]
    if thorough or not holds:
        at = info.frames_at
        while (at := window.find(b"fLaC", at)) >= 0:
            if window.at(at, 8) in _MARKS and _info(window, at) is not None:
                begins.append(at)
            at += 4
    if len(begins) == 1 and holds:
        return [WHOLE]
    ends = [*begins[1:], source.size]
    return [_part(window, a, b, source.where) for a, b in zip(begins, ends, strict=True)]


def _info(window: Window, begin: int) -> _Info | None:
    head = window.at(begin, 8 + _STREAMINFO)
    if head[:8] not in _MARKS or len(head) < 8 + _STREAMINFO:
        return None
    body = head[8:]
    total = int.from_bytes(body[13:18], "big") & (1 << 36) - 1
    largest = int.from_bytes(body[7:10], "big")
    at, final = begin + 4, False
    while not final:
        block = window.at(at, 4)
        if len(block) < 4:
            return None
        final = bool(block[0] & 0x80)
        at += 4 + int.from_bytes(block[1:], "big")
    return _Info(total, begin + 8 + 13, int.from_bytes(body[2:4], "big"), largest, at)


def _part(window: Window, begin: int, end: int, where: str) -> Part:
    """The stretch with the total that its last frame bears out, or none where there is no frame."""
    info = _info(window, begin)
    assert info is not None
    total = _last_sample(window, info, end) or 0
    if 0 < total < info.total:
        raise cut_off(total, info.total, "samples", where)
    upper = window.at(info.total_at, 1)[0] & 0xF0
    field = total.to_bytes(5, "big")
    pieces = (
        Stretch(begin, info.total_at),
        bytes([upper | field[0] & 0x0F]) + field[1:],
        Stretch(info.total_at + 5, end),
    )
    return Part(pieces, max(info.total, total))


def _last_sample(window: Window, info: _Info, end: int) -> int | None:
    """The sample behind the last frame that begins before `end`; None if none is found."""
    sync = window.at(info.frames_at, 4)
    if len(sync) < 4:
        return None
    span = 2 * info.largest_frame + 64 if info.largest_frame else _TAIL
    begin = max(info.frames_at, end - span)
    tail = window.at(begin, end - begin)
    at = len(tail)
    while (at := tail.rfind(sync[:2], 0, at)) >= 0:
        # All frames of a file have one rate and one width.
        if (
            at + 4 <= len(tail)
            and not (tail[at + 2] ^ sync[2]) & 15
            and not (tail[at + 3] ^ sync[3]) & 15
        ):
            sample = _end_of_frame(tail[at : at + 16], info.block_size)
            if sample is not None:
                return sample
        at += 1  # rfind's end is exclusive and the mark is two bytes
    return None


def _end_of_frame(header: bytes, block_size: int) -> int | None:
    """The sample behind a frame, from its header; None if it is none."""
    header = header.ljust(16, b"\0")
    ones = 8 - (~header[4] & 0xFF).bit_length()  # leading ones, as in UTF-8
    if ones in (1, 8):
        return None
    more = max(ones - 1, 0)
    number = header[4] & (0x7F >> ones)
    for byte in header[5 : 5 + more]:
        number = number << 6 | byte & 0x3F
    at, code = 5 + more, header[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(header[at : at + code - 5], "big") + 1
        at += code - 5
    elif code in _BLOCK_SIZES:
        size = _BLOCK_SIZES[code]
    else:
        return None
    at += _RATE_BYTES.get(header[2] & 15, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    variable = header[1] & 1
    return (number if variable else number * block_size) + size


def _crc8(data: bytes) -> int:
    """The checksum of a frame's header (polynomial x^8 + x^2 + x + 1)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
