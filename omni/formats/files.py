"""Files whole or not at all, what a killed process left half written, paths that are URLs, and names
that are to become files.

Must not know what is in the files.
"""

import contextlib
import glob
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from upath import UPath

from omni.errors import OmniError

LONGEST_NAME = 150  # bytes: with a number, a host and a suffix it stays below a file system's 255
LONGEST_ID = 4096  # bytes: an id may be a path, and no path is longer


def safe_name(name: str, what: str) -> str:
    """`name`, if a file or folder of that name stays in the folder it is put in.

    Args:
        what: what bears the name, for the error ("a split").

    Raises:
        OmniError: empty or blank, hidden, `..`, with a separator or a control character, or too long.
    """
    if (
        not name.strip()
        or name.startswith(".")
        or any(c in "/\\" or not c.isprintable() for c in name)
    ):
        fault = "is empty, begins with a dot, or holds a separator or a control character"
    elif len(_utf8(name, what)) > LONGEST_NAME:
        fault = f"is longer than {LONGEST_NAME} bytes"
    else:
        return name
    raise OmniError(f"{what} can't have this name: it {fault}", ascii(name[:100]))


def safe_id(utterance_id: str) -> str:
    """`utterance_id`, if it could be a path below some folder; such paths are ids too.

    Raises:
        OmniError: empty, absolute, with a `..` or a NUL in it, or too long.
    """
    what = "an utterance"
    if not utterance_id or utterance_id[0] in "/\\" or "\0" in utterance_id:
        fault = "is empty, begins with a separator, or holds a NUL"
    elif ".." in utterance_id.replace("\\", "/").split("/"):
        fault = "leads out of its folder"
    elif len(_utf8(utterance_id, what)) > LONGEST_ID:
        fault = f"is longer than {LONGEST_ID} bytes"
    else:
        return utterance_id
    raise OmniError(f"{what} can't have this id: it {fault}", ascii(utterance_id[:100]))


def _utf8(name: str, what: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise OmniError(f"{what} has a name that is no text", ascii(name[:100])) from error


def locate(name: str | Path) -> Path:
    """A local path, or one in a store that fsspec knows (`s3://…`, `gs://…`, `https://…`).

    The latter reads as a Path does: open, stat, iterdir, glob, parent and `/`.

    Raises:
        OmniError: no such store, its package is not installed, or it can't be reached.
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
    except Exception as error:  # each store has exceptions of its own
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise OmniError(f"this store can't be used ({said})", str(name)) from error
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


def clear_stale(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of `name` (None: of all) whose process, on this host, is no more."""
    pattern = "*" if name is None else glob.escape(name)
    for path in folder.glob(f".{pattern}.{glob.escape(socket.gethostname())}-*.tmp"):
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
