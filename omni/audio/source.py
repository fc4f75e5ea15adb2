"""Where the bytes of a recording come from: a file, a stretch of it, or one with a header put right.

Must not know what the bytes mean.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from omni.errors import OmniError

AudioSource = str | Path | bytes | BinaryIO

_CACHED = 1 << 20  # bytes that a Window holds


class Stretch(NamedTuple):
    """Bytes [begin, end) of a file."""

    begin: int
    end: int


class Part(NamedTuple):
    """What one decoder reads from its start to its end.

    pieces: laid end to end they are the part; empty means the file as it is.
    at_least: samples per channel that are known to be there; 0 where the decoder's own word holds.
    """

    pieces: tuple[bytes | Stretch, ...] = ()
    at_least: int = 0


WHOLE = Part()


class Source:
    """An open recording: its file, its size in bytes, and the name that errors give."""

    def __init__(self, source: AudioSource) -> None:
        self.where = _name(source)
        self.path: bytes | None = None  # for decoders that read a file by themselves
        if isinstance(source, str | Path):
            self.file: BinaryIO = _open(Path(source), self.where)
            self.path = os.fsencode(source)
        elif isinstance(source, bytes):
            self.file = io.BytesIO(source)
        else:
            self.file = source if source.seekable() else io.BytesIO(source.read())
        self.size = self.file.seek(0, os.SEEK_END)
        if not self.size:
            self.close()
            raise OmniError("audio file has 0 bytes", self.where)

    def close(self) -> None:
        """Close a file that was opened here; the caller's own stays open."""
        if self.path is not None:
            self.file.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """Bytes of a file by their position; the last megabyte read is kept."""

    def __init__(self, source: Source) -> None:
        self.size = source.size
        self._file = source.file
        self._begin, self._cache = 0, b""

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes, fewer where the file ends."""
        offset = position - self._begin
        if offset < 0 or offset + count > len(self._cache):
            self._file.seek(position)
            self._begin, self._cache = position, self._file.read(max(count, _CACHED))
            offset = 0
        return self._cache[offset : offset + count]

    def find(self, what: bytes, begin: int) -> int:
        """Position of the first `what` at or behind `begin`; -1 if there is none."""
        while begin < self.size:
            if not 0 <= begin - self._begin <= len(self._cache) - len(what):
                self.at(begin, _CACHED)
            found = self._cache.find(what, begin - self._begin)
            if found >= 0:
                return self._begin + found
            begin = max(self._begin + len(self._cache) - len(what) + 1, begin + 1)
        return -1


class View:
    """A part of a file as a file of its own, with the methods that decoders call."""

    def __init__(self, source: Source, pieces: Sequence[bytes | Stretch]) -> None:
        self._source, self._pieces = source, pieces
        self._sizes = [len(p) if isinstance(p, bytes) else p.end - p.begin for p in pieces]
        self._size, self._position = sum(self._sizes), 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """As of any file."""
        out = []
        left = self._size - self._position if count < 0 else count
        begin = 0
        for piece, size in zip(self._pieces, self._sizes, strict=True):
            inside = self._position - begin
            if left > 0 and 0 <= inside < size:
                out.append(self._read(piece, inside, min(left, size - inside)))
                self._position += len(out[-1])
                left -= len(out[-1])
            begin += size
        return b"".join(out)

    def write(self, data: bytes) -> int:
        """Asked for by soundfile's check, never called."""
        raise io.UnsupportedOperation("a recording is only read")

    def _read(self, piece: bytes | Stretch, offset: int, count: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[offset : offset + count]
        self._source.file.seek(piece.begin + offset)
        return self._source.file.read(count)


def cut_off(have: int, of: int, unit: str, where: str) -> OmniError:
    """The error of a recording that ends before its end."""
    return OmniError(f"audio is cut off: {have} of {of} {unit}", where)


def _open(path: Path, where: str) -> BinaryIO:
    if not path.is_file():
        raise OmniError("no such audio file", where)
    try:
        return path.open("rb")
    except OSError as error:
        raise OmniError(f"audio file can't be opened ({error.strerror})", where) from error


def _name(source: AudioSource) -> str:
    if isinstance(source, bytes):
        return f"{len(source)} bytes of audio"
    name = str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "audio"))
    # A name that is no UTF-8 holds surrogates, which no terminal and no table takes.
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
