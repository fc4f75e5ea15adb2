"""What lies in a folder of audio: the recordings and the text files beside them, links followed.

Must not know what a transcript is, nor how a corpus is laid out.
"""

import heapq
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from omni.audio import AUDIO_SUFFIXES
from omni.errors import OmniError

# Files that macOS leaves in archives beside the real ones, under the same suffixes.
_FORK_PREFIX, _FORK_FOLDER = "._", "__MACOSX"


@dataclass(frozen=True)
class Tree:
    """The files below a folder; each path begins with it, each tuple is sorted."""

    folder: Path
    audio: tuple[Path, ...]  # by suffix: some may be links that lead nowhere
    texts: tuple[Path, ...]  # `.txt`, in any case
    closed: tuple[Path, ...]  # folders that can't be read

    def id_of(self, path: Path) -> str:
        """A recording's path in the folder without its suffix, with forward slashes."""
        return path.relative_to(self.folder).with_suffix("").as_posix()


def walk(folder: Path) -> Tree:
    """List a folder to any depth.

    A linked folder is entered too, but none twice: what lies in the folder itself comes first, and a
    link back to it or to a folder above it leads nowhere new. Leftovers of macOS are passed over.

    Raises:
        OmniError: the folder can't be read, or its own name is not UTF-8.
    """
    require_utf8(folder)
    files: list[Path] = []
    closed: list[Path] = []
    seen = {_identity(parent) for parent in Path(os.path.realpath(folder)).parents}
    waiting: list[Path] = [folder]
    linked: list[Path] = []
    while waiting or linked:  # links last: a folder is listed under its own name where it has one
        here = waiting.pop() if waiting else heapq.heappop(linked)
        try:
            identity = _identity(here)
            entries = [] if identity in seen else sorted(os.scandir(here), key=lambda e: e.name)
        except OSError as error:
            if here == folder:
                what = f"the folder can't be read ({error.strerror})"
                raise OmniError(what, str(folder)) from error
            closed.append(here)
            continue
        seen.add(identity)
        for entry in entries:
            if entry.name.startswith(_FORK_PREFIX) or entry.name == _FORK_FOLDER:
                continue
            path = here / entry.name
            if not _is_folder(entry):
                files.append(path)
            elif entry.is_symlink():
                heapq.heappush(linked, path)
            else:
                waiting.append(path)
    files.sort()
    audio = tuple(p for p in files if p.suffix.lower() in AUDIO_SUFFIXES)
    texts = tuple(p for p in files if p.suffix.lower() == ".txt")
    return Tree(folder, audio, texts, tuple(closed))


def unique_ids(ids: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """A recording for each id.

    Raises:
        OmniError: an id that two have, with one of the pairs and how many there are.
    """
    paths: defaultdict[str, list[Path]] = defaultdict(list)
    for utterance_id, path in ids:
        paths[utterance_id].append(path)
    twice = [i for i, files in paths.items() if len(files) > 1]
    if twice:
        one, two = paths[twice[0]][:2]
        more = f", and {len(twice) - 1} ids more" if len(twice) > 1 else ""
        what = f"two audio files for {shown(twice[0])}{more}"
        raise OmniError(what, f"{shown(one)} and {shown(two)}", "keep one of them in the folder")
    return {utterance_id: files[0] for utterance_id, files in paths.items()}


def fault_of(path: Path) -> str:
    """Why a recording that was listed can't be opened at all; empty if it can be tried."""
    if not is_utf8(str(path)):
        return f"the file's name is not UTF-8 ({shown(path)}): rename it"
    if os.path.isfile(path):
        return ""
    return "a link that leads nowhere" if os.path.islink(path) else "no regular file"


def same_name(name: str) -> str:
    """One form of a name: letters with accents are one character or two, as systems differ."""
    return unicodedata.normalize("NFC", name)


class Names:
    """Ids of recordings, found by a name that a text gives."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._forms: defaultdict[str, list[str]] = defaultdict(list)
        for utterance_id in ids:
            self._forms[same_name(utterance_id)].append(utterance_id)

    def find(self, name: str) -> str | None:
        """The id that is spelt so; else the one whose accents are, if there is but one."""
        found = self._forms.get(same_name(name), [])
        if name in found:
            return name
        return found[0] if len(found) == 1 else None


def tidy_id(name: str) -> str:
    """A name from a text as an id, which is never absolute and never leads upwards."""
    parts = os.path.normpath(name).split("/")
    return "/".join(part for part in parts if part not in ("", "..")) or "_"


def is_utf8(name: str) -> bool:
    """Whether a file's name is text; one from an old archive may be mere bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def shown(name: str | Path) -> str:
    """A name that can be printed and stored: a byte that is no text as `%E9`."""
    text = str(name)
    if is_utf8(text):
        return text
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c if is_utf8(c) else "\ufffd"
        for c in text
    )


def require_utf8(folder: Path) -> None:
    """A corpus's folder itself must have a name that can be stored.

    Raises:
        OmniError: it has not; the name is shown escaped.
    """
    if not is_utf8(str(folder)):
        raise OmniError("the folder's name is not UTF-8", shown(folder), "rename it")


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: no folder, its file will be said to lead nowhere
        return False
