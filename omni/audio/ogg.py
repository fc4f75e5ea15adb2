"""The streams of an Ogg file (Vorbis, Opus, FLAC), which may lie behind one another.

libsndfile reads the first of a chain, and takes half a file for a whole one. Must not know what the
pages hold.
"""

from omni.audio.source import WHOLE, Part, Source, Stretch, Window
from omni.errors import OmniError

_FIRST, _LAST = 2, 4  # flags of a page: its stream begins, ends with it


def ogg_parts(source: Source) -> list[Part]:
    """A part for each link of the chain, begin to end.

    Raises:
        OmniError: the last page of a stream lacks the end mark, or is not all there.
    """
    window = Window(source)
    begins: list[int] = []
    open_streams: set[int] = set()
    heads = False  # the last page was one of those that begin a link
    at = 0
    while (at := window.find(b"OggS", at)) >= 0:
        header = window.at(at, 27)
        segments = window.at(at + 27, header[26]) if len(header) == 27 else b""
        if len(header) < 27 or len(segments) < header[26]:
            break
        end = at + 27 + len(segments) + sum(segments)
        flags, serial = header[5], int.from_bytes(header[14:18], "little")
        if flags & _FIRST:
            if not heads:
                _require_ended(open_streams, source.where)
                begins.append(at)
            open_streams.add(serial)
        heads = bool(flags & _FIRST)
        if end > source.size:
            break
        if flags & _LAST:
            open_streams.discard(serial)
        at = end
    if at >= 0:
        raise OmniError("audio is cut off: its last page is not all there", source.where)
    _require_ended(open_streams, source.where)
    if len(begins) <= 1:
        return [WHOLE]
    ends = [*begins[1:], source.size]
    return [Part((Stretch(a, b),)) for a, b in zip(begins, ends, strict=True)]


def _require_ended(open_streams: set[int], where: str) -> None:
    if open_streams:
        raise OmniError("audio is cut off: its last page lacks the end mark", where)
