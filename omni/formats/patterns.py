"""Names of folders with `*`, `?`, `[…]`, `**` and `{…}` in them, local or in a store.

A folder that is there under exactly the name, or under a part of it, is that folder, whatever
characters it has; only what is not there is a pattern. Must not know what is in the folders.
"""

import fnmatch
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import braceexpand

from omni.errors import OmniError
from omni.formats.files import locate
from omni.formats.stores import ask, is_folder

MOST_NAMES = 10_000  # of a brace list, and folders below a `**`
_MOST_PRODUCT = 100_000  # braceexpand holds so many in memory before it gives the first
_DEEPEST = 20  # braces in braces, folders below a `**`
_LONGEST = 10_000  # characters
_GLOB = re.compile(r"[*?\[]")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")


def find_folders(pattern: str) -> list[Path]:
    """The folders that a name or pattern stands for, each once; sorted where a glob found them.

    A name without a glob is given back whether or not it is there: its absence is for the caller
    to tell.

    Raises:
        OmniError: a pattern that stands for too many names; a store that does not answer.
    """
    if len(pattern) > _LONGEST:
        raise OmniError(f"a name of {len(pattern)} characters", f"{pattern[:60]}…")
    found = [folder for name in _expanded(pattern) for folder in _matches(name)]
    return list({str(folder): folder for folder in found}.values())


def _expanded(pattern: str) -> list[str]:
    """The names of a brace list; the pattern itself where it is none, or is there as it stands."""
    if "{" not in pattern:
        return [pattern]
    start, parts = _split(pattern)
    folder, there = start, 0
    while there < len(parts) and (not _special(parts[there]) or _is_folder(folder, parts[there])):
        folder += parts[there] + "/"
        there += 1
    rest = "/".join(parts[there:])
    if "{" not in rest or not _balanced(rest):
        return [pattern]
    names = list(itertools.islice(braceexpand.braceexpand(rest), MOST_NAMES + 1))
    if len(names) > MOST_NAMES:
        raise _too_many(pattern)
    return [name if "://" in name else folder + name for name in names]


def _balanced(pattern: str) -> bool:
    """Whether its braces pair.

    Raises:
        OmniError: they nest too deep, or stand for too many names.
    """
    product = 1
    commas: list[int] = []
    for character in re.findall(r"\\.|[{},]", pattern, re.DOTALL):
        if character == "{":
            commas.append(0)
        elif character == "," and commas:
            commas[-1] += 1
        elif character == "}":
            if not commas:
                return False
            product *= commas.pop() + 1
        if len(commas) > _DEEPEST:
            raise _too_many(pattern)
    for first, last, step in _RANGE.findall(pattern):
        if max(len(first), len(last), len(step)) > 12:
            raise _too_many(pattern)
        product *= abs(int(last) - int(first)) // (int(step or 1) or 1) + 1
    if product > _MOST_PRODUCT:
        raise _too_many(pattern)
    return not commas


def _too_many(pattern: str) -> OmniError:
    return OmniError(
        f"a brace list of more than {MOST_NAMES:,} names, or nested too deep",
        pattern if len(pattern) < 200 else f"{pattern[:200]}…",
        "name the folder above, or use *",
    )


def _matches(name: str) -> Iterator[Path]:
    """The folders of a name without braces, part by part."""
    start, parts = _split(name)
    if not any(_GLOB.search(part) for part in parts):
        yield locate(name)
        return
    if _is_folder("", name):
        yield locate(name)
        return
    # The parts before the first glob are not looked for: a store may not list its root.
    fixed = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    folders = [locate(start + "/".join(parts[:fixed]) or ".")]
    for part in parts[fixed:]:
        folders = [below for folder in folders for below in _below(folder, part)]
        folders = list({str(folder): folder for folder in folders}.values())
        if len(folders) > MOST_NAMES:
            raise OmniError(f"a pattern of more than {MOST_NAMES:,} folders", name)
    yield from folders


def _below(folder: Path, part: str) -> list[Path]:
    """The folders in a folder that a part of a pattern stands for."""
    if part == "**":
        return _all_below(folder)
    named = folder / part
    if is_folder(named):
        return [named]
    if not _GLOB.search(part):
        return []
    return [path for path in _folders_in(folder) if fnmatch.fnmatchcase(path.name, part)]


def _all_below(folder: Path) -> list[Path]:
    """A folder and all below it; links are taken, and not followed further."""
    found = [folder] if is_folder(folder) else []
    level = found
    for _ in range(_DEEPEST):
        level = [
            below
            for path in level
            if path is folder or not ask(path, lambda p: p.is_symlink())
            for below in _folders_in(path)
        ]
        found = found + level
        if len(found) > MOST_NAMES:
            raise OmniError(f"more than {MOST_NAMES:,} folders", str(folder), "name one of them")
        if not level:
            break
    return found


def _folders_in(folder: Path) -> list[Path]:
    if not is_folder(folder):
        return []
    return ask(folder, lambda path: sorted((p for p in path.iterdir() if p.is_dir()), key=str))


def _special(part: str) -> bool:
    return "{" in part or "}" in part or bool(_GLOB.search(part))


def _is_folder(start: str, part: str) -> bool:
    return is_folder(locate(start + part))


def _split(pattern: str) -> tuple[str, list[str]]:
    """What comes before the parts (`/`, `s3://bucket/` or nothing), and the parts."""
    scheme, separator, rest = pattern.partition("://")
    if separator and "{" not in scheme:
        authority, _, path = rest.partition("/")
        if "{" not in authority:
            return f"{scheme}://{authority}/", [part for part in path.split("/") if part]
    if separator:  # a brace list of URLs
        return "", [pattern]
    start = "/" if pattern.startswith("/") else ""
    return start, [part for part in pattern.split("/") if part]
