"""Reading a path that may lie in a store: whatever goes wrong is one line, no wait is without end.

A store answers half, late, never, or drips. What it is asked runs in a thread of its own, so a wait
ends even where the store's client knows no timeout; every store has exceptions of its own, so all
of them are told alike. Local paths are asked at once. Must not know what is in the files.
"""

import contextlib
import io
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from omni.errors import OmniError

T = TypeVar("T")
_ELSEWHERE = "try again later, or copy the shards to this machine"
STALL_SECONDS = 60.0  # for an answer, or for the next CHUNK bytes: 17 kB/s are needed
CHUNK = 1 << 20  # bytes asked of a store at once
# Of what is waited for, not of what is read: a shard may stay open while a step is made. A day would
# bring 350 MB; a phone's line brings fifty times as much.
LEAST_RATE = 4096  # bytes a second, on the mean of each
PATIENCE_SECONDS = 300.0


class Pace:
    """Gives up on what comes too slowly, though something comes all the time."""

    def __init__(self) -> None:
        self._seconds, self._bytes = 0.0, 0

    def took(self, seconds: float, n_bytes: int) -> None:
        """`n_bytes` came after a wait of so long.

        Raises:
            TooSlowError: less than LEAST_RATE in the last PATIENCE_SECONDS of waiting.
        """
        self._seconds += seconds
        self._bytes += n_bytes
        if self._seconds >= PATIENCE_SECONDS:
            if self._bytes < LEAST_RATE * self._seconds:
                raise TooSlowError(
                    f"too slow: {self._bytes:,} bytes in {self._seconds:.0f} s, "
                    f"{LEAST_RATE:,} a second are needed"
                )
            self._seconds, self._bytes = 0.0, 0


class TooSlowError(OSError):
    """What was asked for comes, and would not be there in any time worth waiting."""


def ask(path: Path, question: Callable[[Path], T], mend: str = "") -> T:
    """The answer to a question about a path, like `lambda p: p.is_dir()`.

    Raises:
        OmniError: not there, no permission, a name too long, a store that gives no answer.
    """
    with _told(path, mend):
        return question(path) if _is_local(path) else _patient(lambda: question(path), path)


def is_folder(path: Path, mend: str = "") -> bool:
    """Whether there is a folder.

    Raises:
        OmniError: as `ask`; a store that can't be asked is not one where nothing is.
    """
    return ask(path, lambda p: _may_be(p) and (p.is_dir() or _no_other(p)), mend)


def is_file(path: Path, mend: str = "") -> bool:
    """Whether there is a file, no folder and no device.

    Raises:
        OmniError: as `is_folder`.
    """
    return ask(path, lambda p: p.is_file() or _no_other(p), mend)


def _may_be(path: Path) -> bool:
    """Whether the file system could hold such a name: a list in braces is soon too long for one."""
    parts = [len(os.fsencode(part)) for part in path.parts] if _is_local(path) else []
    return sum(parts) + len(parts) < 4096 and max(parts, default=0) < 256


def _no_other(path: Path) -> bool:
    """False, unless the answer was no because the store gave none: fsspec tells both alike."""
    if not _is_local(path):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    return False


@contextlib.contextmanager
def opened(path: Path, mend: str = "", ahead: int | None = None) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading and seeking; errors while it is open are told likewise.

    Args:
        ahead: bytes that a store is asked for at once; None suits reading from begin to end, a few
            thousand suit jumps, which would fetch the whole file else.

    Raises:
        OmniError: not there, a folder, a pipe or a device, no permission, unreadable; a store that
            gives no answer, nothing for STALL_SECONDS, or less than LEAST_RATE for PATIENCE_SECONDS.
    """
    if _is_local(path):
        with _told(path, mend):
            # A pipe would be waited for, and a device may never end.
            if not stat.S_ISREG(path.stat().st_mode):
                raise OmniError("not a regular file", str(path), mend)
            with path.open("rb") as file:
                yield file
        return
    with _told(path, mend):
        remote = _Patient(_patient(lambda: _open_remote(path, ahead), path), path)
    with contextlib.closing(remote), _told(path, mend):
        yield io.BufferedReader(remote, ahead or CHUNK)


def read_bytes(path: Path, most: int, mend: str = "") -> bytes:
    """The whole of a file of at most `most` bytes.

    Raises:
        OmniError: as `opened`, or it is longer.
    """
    parts: list[bytes] = []
    left = most + 1
    with opened(path, mend) as file:
        # In pieces: a read of `most` bytes would allocate them before there is one.
        while left and (data := file.read(min(left, CHUNK))):
            parts.append(data)
            left -= len(data)
    if not left:
        raise OmniError(f"longer than {most:,} bytes", str(path), mend)
    return b"".join(parts)


def _open_remote(path: Any, ahead: int | None) -> Any:
    return path.open("rb") if ahead is None else path.open("rb", block_size=ahead)


class _Patient(io.RawIOBase):
    """An open file of a store, each read of which ends in time."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path
        self._given_up = False
        self._pace = Pace()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), CHUNK)
        began = time.monotonic()
        try:
            data = _patient(lambda: self._file.read(wanted), self._path)
            if data:  # the end is no pace
                self._pace.took(time.monotonic() - began, len(data))
        except TooSlowError as error:
            self._given_up = True
            raise OmniError(f"the store is {error}", str(self._path), _ELSEWHERE) from error
        except OmniError:
            self._given_up = True
            raise
        if len(data) > wanted:
            raise ValueError(f"{len(data)} bytes for the {wanted} that were asked")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        # A file whose read still hangs would hang its close too: the thread keeps it.
        if not self.closed and not self._given_up:
            with contextlib.suppress(OmniError):  # read already: nothing is lost
                _patient(self._file.close, self._path)
        super().close()


def _is_local(path: Path) -> bool:
    return isinstance(path, Path)  # a UPath of a store only reads like one


def _patient(work: Callable[[], T], path: Path) -> T:
    """What `work` returns or raises, if it does within STALL_SECONDS."""
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except Exception as error:  # handed over and raised below
            answers.put((None, error))

    # A daemon: one that waits for a dead store must not hold up the end of the process.
    threading.Thread(target=run, daemon=True, name="store").start()
    try:
        answer, error = answers.get(timeout=STALL_SECONDS)
    except queue.Empty:
        raise OmniError(
            f"the store stalls: too little came in {STALL_SECONDS:g} s",
            str(path),
            _ELSEWHERE,
        ) from None
    if error is not None:
        raise error
    return cast(T, answer)


@contextlib.contextmanager
def _told(path: Path, mend: str) -> Iterator[None]:
    """Errors of a file system as an OmniError."""
    try:
        yield
    except OmniError:
        raise
    except FileNotFoundError as error:
        raise OmniError("no such file", str(path), mend) from error
    except OSError as error:
        raise OmniError(f"can't read ({error.strerror or error})", str(path), mend) from error
    except Exception as error:
        if _is_local(path) and not isinstance(error, ValueError):  # ValueError: a NUL in the name
            raise
        what = f"can't read ({type(error).__name__}: {error})"
        raise OmniError(what, str(path), mend or "try again later") from error
