"""Plain tars as a stream of members, read strictly: they may be a stranger's, or damaged.

Only what a shard's writer writes is read: regular files, uncompressed, with PAX headers for long
names or sizes. Links, devices, sparse members and compressed tars are refused, not skipped. Nothing
is allocated that the file does not hold. Must not know what is in the members.
"""

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

_BLOCK = 512
_MAX_PAX = 1 << 16  # bytes of a PAX header: a name and a size
_CHUNK = 1 << 20


class Stream(Protocol):
    """What a tar is read from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; returns the bytes read, fewer only at the end."""
        ...


class Member(NamedTuple):
    """A file in a tar: `read` gives its `size` bytes, once, before the next member is asked for.
    `end`: where the next one's headers begin, in bytes from the tar's start."""

    name: str
    size: int
    read: Callable[[], bytearray]
    end: int


class Stretch:
    """Whole members out of the middle of a tar, as a tar of their own: its end mark is made up.

    Args:
        stream: stands at the headers of the first of them.
        size: bytes of them all.
    """

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream, self.left = stream, size

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; zeros once the members are read. `left`: bytes before that."""
        if not self.left:
            buffer[:] = bytes(len(buffer))
            return len(buffer)
        n = self._stream.readinto(buffer[: self.left])
        self.left -= n
        return n


class TarError(ValueError):
    """The tar is not plain, not whole, or lies about a size."""


def members(
    stream: Stream, total: int, seek: Callable[[int], object] | None = None
) -> Iterator[Member]:
    """The members in order; what is not read of one is passed over. Ends at the tar's end mark.

    Args:
        stream: open at its start.
        total: bytes of the file; no member is longer than what is left of it.
        seek: to a byte of the file, to jump over what nobody reads; None reads it all.

    Raises:
        TarError: a header that is none, a member of another kind, a size that can't be, no end.
    """
    at = 0  # where the stream stands
    long: dict[str, str] = {}  # of a PAX header, for the member after it
    while True:
        header = _exactly(stream, _BLOCK)
        at += _BLOCK
        if not header.strip(b"\0"):
            return
        info = _header(header)
        size = int(long["size"]) if "size" in long else info.size
        if not 0 <= size <= total - at:
            raise TarError(f"a member of {size} bytes, {max(total - at, 0)} are left")
        end = at + size + -size % _BLOCK
        if info.type == tarfile.XHDTYPE:
            if size > _MAX_PAX:
                raise TarError(f"a PAX header of {size} bytes")
            long = _pax(bytes(_exactly(stream, size)))
            at += size
        else:
            state = _Body(stream, size)
            yield Member(long.get("path", info.name), size, state.read, end)
            at += state.taken
            long = {}
        if seek is not None and end > at:
            seek(end)
        else:
            _skip(stream, end - at)
        at = end


class _Body:
    """A member's bytes, taken at most once."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream, self._size = stream, size
        self.taken = 0

    def read(self) -> bytearray:
        data = _exactly(self._stream, self._size)
        self.taken = len(data)
        return data


def _header(block: bytearray) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(bytes(block), "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise TarError(f"no tar header: {error}") from error
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.XHDTYPE):
        raise TarError(f"{info.name!r} is no regular file (kind {info.type!r})")
    return info


def _pax(data: bytes) -> dict[str, str]:
    """`path` and `size` of records like `18 path=KEY.json` and a line feed."""
    found: dict[str, str] = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 6 or not len(length) < int(length) <= len(data):
            raise TarError("a PAX header that can't be read")
        key, _, value = data[len(length) + 1 : int(length)].removesuffix(b"\n").partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise TarError("a sparse member")
        if key == b"size" and not (value.isdigit() and len(value) < 20):
            raise TarError(f"a size {value[:20]!r}")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


def _exactly(stream: Stream, size: int) -> bytearray:
    data = bytearray(size)
    if stream.readinto(memoryview(data)) != size:
        raise TarError("it ends before its end mark")
    return data


def _skip(stream: Stream, size: int) -> None:
    while size > 0:
        size -= len(_exactly(stream, min(size, _CHUNK)))
