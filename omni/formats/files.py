"""Files whole or not at all, what a killed process left half written, and paths that are URLs.

Must not know what is in the files.
"""

import os
import socket
from pathlib import Path
from typing import cast

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
        OSError: the disk is full, the folder is gone, …
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_stale(path.parent, path.name)
    temporary = temporary_path(path.parent, path.name)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
