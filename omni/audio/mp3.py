"""How many samples an MP3 file really holds: its frames are counted.

An MP3 is a row of frames. The first may be empty and hold their number (a "Xing", "Info" or "VBRI"
frame); it may be missing, or be that of the first of several files. libsndfile guesses the length
from the first frame's size where it is missing, believes it where it is there, and reads no
further. Must not know how frames are coded.
"""

from collections.abc import Iterator
from typing import NamedTuple

from omni.audio.source import WHOLE, Part, Source, Stretch, Window, cut_off

_BITRATES_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_TAG_BYTES = 128  # of an ID3v1 tag at a file's end
_VBRI_AT = 36  # where a VBRI frame says so


class _Frame(NamedTuple):
    """A frame's header: bytes of the frame, and what can't change within a stream."""

    size: int
    version: int
    rate: int
    mono: bool


class _Run:
    """Frames behind one another that one decoder reads."""

    def __init__(self, begin: int, frame: _Frame, count: int | None) -> None:
        self.begin, self.end, self.first, self.count = begin, begin, frame, count
        self.sound_at = begin if count is None else begin + frame.size
        self.frames = 0


def mp3_parts(source: Source, begin: int) -> list[Part] | None:
    """A part for each stream; mostly the whole file as it is. None if the file is no MP3.

    Args:
        begin: where the first frame should be, behind an ID3v2 tag.

    Raises:
        OmniError: fewer frames than promised, or a last frame that is not all there.
    """
    window = Window(source)
    end = _end_of_frames(window)
    first = _frame(window.at(begin, 4))
    if first is None or not _follows(window, begin + first.size, end, first):
        return None
    runs = list(_runs(window, begin, end, source.where))
    for run in runs:
        # Some writers count the information frame in.
        if run.count is not None and run.count > run.frames + 1:
            raise cut_off(run.frames, run.count, "frames", source.where)
    if len(runs) == 1 and _holds(runs[0]):
        return [WHOLE]
    return [_part(run) for run in runs if run.frames]


def id3_size(window: Window, at: int) -> int:
    """Bytes of an ID3v2 tag that begins there, 0 if none does."""
    head = window.at(at, 10)
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:]):
        return 0
    size = 0
    for byte in head[6:]:
        size = size << 7 | byte
    return size + (20 if head[5] & 0x10 else 10)


def _runs(window: Window, at: int, end: int, where: str) -> Iterator[_Run]:
    """Walk the frames; an information frame or another rate begins a new run."""
    run: _Run | None = None
    while at < end:
        frame = _frame(window.at(at, 4))
        if frame is None:
            tag = id3_size(window, at)
            found = at + tag if tag else _resync(window, at, end)
            if found is None:
                break
            at = found
            continue
        if at + frame.size > end:
            raise cut_off(end - at, frame.size, "bytes of the last frame", where)
        count = _count(window.at(at, frame.size), frame)
        if run is None or count is not None or frame[1:] != run.first[1:]:
            if run is not None:
                yield run
            run = _Run(at, frame, count)
        if count is None:
            run.frames += 1
        at += frame.size
        run.end = at
    if run is not None:
        yield run


def _holds(run: _Run) -> bool:
    return run.count is not None and abs(run.count - run.frames) <= 1


def _part(run: _Run) -> Part:
    """The run, behind an information frame that is right."""
    if _holds(run):
        return Part((Stretch(run.begin, run.end),))
    return Part((_information(run.first, run.frames), Stretch(run.sound_at, run.end)))


def _frame(head: bytes) -> _Frame | None:
    """The header of a layer III frame; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, code, rate_code = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or code in (0, 15) or rate_code == 3:
        return None
    rate = _RATES[version][rate_code]
    kilobits = (_BITRATES_1 if version == 3 else _BITRATES_2)[code - 1]
    size = (144 if version == 3 else 72) * kilobits * 1000 // rate + (head[2] >> 1 & 1)
    return _Frame(size, version, rate, head[3] >> 6 == 3)


def _side_bytes(frame: _Frame) -> int:
    """Bytes between a frame's header and its sound."""
    if frame.version == 3:
        return 17 if frame.mono else 32
    return 9 if frame.mono else 17


def _count(body: bytes, frame: _Frame) -> int | None:
    """The frames that an information frame promises, 0 if it doesn't; None for a frame of sound."""
    at = 4 + _side_bytes(frame)
    if body[at : at + 4] in (b"Xing", b"Info"):
        says = body[at + 7 : at + 8] > b"\0" and bool(body[at + 7] & 1)
        return int.from_bytes(body[at + 8 : at + 12], "big") if says else 0
    if body[_VBRI_AT : _VBRI_AT + 4] == b"VBRI":
        return int.from_bytes(body[_VBRI_AT + 14 : _VBRI_AT + 18], "big")
    return None


def _information(frame: _Frame, frames: int) -> bytes:
    """A frame without sound that tells the decoder the number of frames behind it."""
    # 64 kbit/s leave room for it at any rate; without padding, without a checksum.
    code = (_BITRATES_1 if frame.version == 3 else _BITRATES_2).index(64) + 1
    rate_code = _RATES[frame.version].index(frame.rate)
    head = bytes(
        [0xFF, 0xE3 | frame.version << 3, code << 4 | rate_code << 2, 0xC0 if frame.mono else 0]
    )
    made = _frame(head)
    assert made is not None
    text = head + bytes(_side_bytes(frame)) + b"Xing\0\0\0\1" + frames.to_bytes(4, "big")
    return text.ljust(made.size, b"\0")


def _follows(window: Window, at: int, end: int, frame: _Frame) -> bool:
    """Whether another frame of the stream, a tag, or the end comes at `at`."""
    following = _frame(window.at(at, 4))
    return (
        at >= end
        or bool(id3_size(window, at))
        or (following is not None and following.rate == frame.rate)
    )


def _resync(window: Window, at: int, end: int) -> int | None:
    """The next position at which two frames lie behind one another, or a tag."""
    while (at := window.find(b"\xff", at + 1)) >= 0 and at < end:
        frame = _frame(window.at(at, 4))
        fits = frame is not None and at + frame.size <= end
        if frame is not None and fits and _follows(window, at + frame.size, end, frame):
            return at
    return None


def _end_of_frames(window: Window) -> int:
    """The file's size without the tags at its end."""
    end = window.size
    if end > _TAG_BYTES and window.at(end - _TAG_BYTES, 3) == b"TAG":
        end -= _TAG_BYTES
    footer = window.at(max(end - 32, 0), 32)
    if footer[:8] == b"APETAGEX":
        end -= int.from_bytes(footer[12:16], "little") + (32 if footer[23] & 0x80 else 0)
    return max(end, 0)
