"""Files whole or not at all, what a killed process left half written, and paths that are URLs.

Must not know what is in the files.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from upath import UPath

from omni.errors import OmniError


def locate(name: str | Path) -> Path:
    """A local path, or one in a store that fsspec knows (`s3://…`, `gs://…`, `https://…`).

    The latter reads as a Path does: open, stat, iterdir, glob, parent and `/`.

    Raises:
        OmniError: no such store, or its package is not installed.
    """
    if isinstance(name, Path) or "://" not in str(name):
        return Path(name)
    try:
        path = UPath(name)
        path.fs  # noqa: B018  connects, so that a missing package shows here
    except ImportError as error:
        raise OmniError("a package for this store is missing", str(name), str(error)) from error
    except ValueError as error:
        raise OmniError("no such store", str(name), "use a local path, s3://, gs://, …") from error
    return cast(Path, path)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` so that a kill leaves the old file or the new; on the disk when this returns.

    Raises:
        OmniError: as `atomic`.
    """
    with atomic(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only once it is whole and on the disk; its folder is made.

    Raises:
        OmniError: it can't be written (disk full, no permission, …); the old content is still there.
    """
    temporary = temporary_path(path.parent, path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_stale(path.parent, path.name)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OmniError(
            f"can't write ({error.strerror or error})",
            str(path),
            "make room or choose another place; what was there before is untouched",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # its folder may be gone, or the disk
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Names in `folder` are on the disk: after a loss of power a renamed file is there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_path(folder: Path, name: str) -> Path:
    """`.NAME.HOST-PID.tmp`: hidden, and no two processes share it."""
    return folder / f".{name}.{socket.gethostname()}-{os.getpid()}.tmp"


def clear_stale(folder: Path, name: str) -> None:
    """Remove the temporary files of `name` whose process, on this host, is no more."""
    host = socket.gethostname()
    for path in folder.glob(f".{name}.{host}-*.tmp"):
        pid = path.name.removesuffix(".tmp").rpartition("-")[2]
        if pid.isdecimal() and not _alive(int(pid)):
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
