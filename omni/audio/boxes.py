"""Whether an mp4 or Matroska file is all there, and whether others lie behind it.

FFmpeg reads what it finds and says nothing of the rest. Must not know codecs.
"""

from omni.audio.source import WHOLE, Part, Source, Stretch, Window, cut_off

_SEGMENT = b"\x18\x53\x80\x67"  # the element that holds a Matroska file's sound


def mp4_parts(source: Source) -> list[Part]:
    """A part for each mp4 file that lies behind another.

    Raises:
        OmniError: the file ends within a box.
    """
    window = Window(source)
    begins, at = [0], 0
    while at + 8 <= window.size:
        head = window.at(at, 16)
        size = int.from_bytes(head[:4], "big")
        if not head[4:8].isalnum():  # behind the last box
            break
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size == 0:  # to the end of the file
            break
        if size < 8:  # the decoder says what is wrong
            return [WHOLE]
        if at + size > window.size:
            raise cut_off(window.size - at, size, "bytes of its last box", source.where)
        if head[4:8] == b"ftyp" and at:
            begins.append(at)
        at += size
    if len(begins) == 1:
        return [WHOLE]
    ends = [*begins[1:], source.size]
    return [Part((Stretch(a, b),)) for a, b in zip(begins, ends, strict=True)]


def matroska_parts(source: Source) -> list[Part]:
    """The whole file: FFmpeg reads one behind another by itself.

    Raises:
        OmniError: the file ends before its sound does.
    """
    window = Window(source)
    at = 4 + _number(window.at(4, 8))[1] + _number(window.at(4, 8))[0]
    if window.at(at, 4) == _SEGMENT:
        size, width = _number(window.at(at + 4, 8))
        have = window.size - at - 4 - width
        unknown = size == (1 << 7 * width) - 1  # a live recording
        if size > have and not unknown:
            raise cut_off(have, size, "bytes", source.where)
    return [WHOLE]


def _number(head: bytes) -> tuple[int, int]:
    """(value, bytes it takes): the first byte's leading zeros tell how many follow."""
    if not head or not head[0]:
        return 0, 1
    width = 9 - head[0].bit_length()
    value = int.from_bytes(head[:width], "big")
    return value & (1 << 7 * width) - 1, width
