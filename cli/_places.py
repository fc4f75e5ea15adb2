"""Where a command will write, looked at before the work: hours later is too late to be told.

Must not know what will be written, and makes nothing.
"""

import os
from pathlib import Path

from omni.errors import OmniError

MEND = "choose another place, or mend its permissions"


def require_folder(path: Path, option: str) -> None:
    """A folder that is there, or can be made, and takes files.

    Raises:
        OmniError: it is no folder, or nothing can be written in it.
    """
    place = path.absolute()
    try:
        while not os.path.lexists(place):
            place = place.parent
        is_folder = place.is_dir()
    except OSError as error:
        raise OmniError(f"{option} can't be used ({error.strerror})", str(path), MEND) from error
    if not is_folder:
        raise OmniError(f"{option} needs a folder, and this is none", str(place), MEND)
    if not os.access(place, os.W_OK | os.X_OK):
        raise OmniError(f"{option} can't be written in", str(place), MEND)


def require_file(path: Path, option: str) -> None:
    """A file that can be made or replaced.

    Raises:
        OmniError: a folder has its name, or its own folder takes no files.
    """
    if os.path.isdir(path):
        raise OmniError(f"{option} needs a file, and this is a folder", str(path), MEND)
    require_folder(path.absolute().parent, option)
