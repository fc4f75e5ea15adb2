"""Rows of a table to pieces of the recordings in a folder: which file is meant, and what of it.

A table is a selection: what it does not name is left out. Must not know how a table is stored.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from extract.corpora.columns import Entry
from extract.corpora.rows import NO_FILE, Header, Piece, channel_count, read_headers
from extract.corpora.texts import Transcript
from extract.corpora.walk import Tree, is_utf8, same_name, shown, tidy_id
from omni.audio import AUDIO_SUFFIXES
from omni.errors import OmniError

# Where tables of Common Voice, LJSpeech and their like keep what they name without a folder.
_SUBFOLDERS = ("clips", "wavs", "wav", "audio", "data")
# Seconds by which the times of a table may differ from those of a file and mean the same.
TOLERANCE = 0.1
EXACT = 0.005  # seconds: below this a piece is not cut


@dataclass(frozen=True)
class Listed:
    """What a table selects of a folder."""

    pieces: list[Piece]
    headers: dict[Path, Header]
    unlisted: int  # recordings of the folder that the table does not name
    repeated: int  # rows that say again what another row has said


def listed_pieces(entries: list[Entry], tree: Tree, table: Path) -> Listed:
    """Find each row's file and, where it has times, its piece of it.

    An id is that of the table, or the file's path in the folder without its suffix, with the times in
    milliseconds behind it where the row is a piece: `talks/meeting-0001000-0002500`.

    Raises:
        OmniError: no row's file is in the folder; a row whose columns name two files; two rows with one piece of a file and other words;
            two files of one id; a channel of a recording that has several. The rows are named.
    """
    finder = _Finder(tree, table)
    found = [(entry, finder.find(entry.audio)) for entry in entries]
    for entry, fits in found:
        _refuse_other_files(entry, fits, finder, table)
    if not any(fits for _, fits in found):
        have = shown(tree.audio[0].relative_to(tree.folder).as_posix())
        what = f"the table names no file of the folder; row 1 has {shown(entries[0].audio)[:200]!r}"
        raise OmniError(
            what, str(table), f"--audio-dir {shown(tree.folder)} has {have!r}, for instance"
        )
    headers = read_headers(fits[0] for _, fits in found if len(fits) == 1)
    pieces: dict[tuple[Path, float, float], tuple[Entry, Piece]] = {}
    missing: list[Piece] = []
    repeated = 0
    for entry, fits in found:
        if len(fits) != 1:
            missing.append(_missing(entry, fits, tree))
            continue
        path = fits[0]
        piece = _piece(entry, path, headers[path], tree, table)
        key = (path, piece.start, piece.length)
        before = pieces.setdefault(key, (entry, piece))
        if before[0] is not entry:
            _require_same(before[0], entry, path, table)
            repeated += 1
    made = [piece for _, piece in pieces.values()]
    _require_unique_ids(pieces.values(), table)
    unlisted = len(set(tree.audio) - headers.keys())
    return Listed([*made, *_renamed(missing, made)], headers, unlisted, repeated)


class _Finder:
    """Names in a table to recordings of the folder."""

    def __init__(self, tree: Tree, table: Path) -> None:
        self._bases = [_plain(tree.folder), _plain(table.parent)]
        self._audio = tree.audio
        self._by_path = _grouped((same_name(_below(p, tree)), p) for p in tree.audio)
        self._by_id = _grouped((same_name(tree.id_of(p)), p) for p in tree.audio)
        self._exact = {_below(p, tree): p for p in tree.audio}

    def find(self, name: str) -> tuple[Path, ...]:
        """The recordings that the name fits: one where it tells, none, or several."""
        several: tuple[Path, ...] = ()
        if is_utf8(name):
            for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
                for fits in self._find(spelling):
                    if len(fits) == 1:
                        return fits
                    several = several or fits
                if several:
                    break
        return several

    def _find(self, name: str) -> Iterator[tuple[Path, ...]]:
        """What the name fits, read in one way after the other."""
        fits_several = False
        for base in self._bases:
            path = os.path.join(base, name)
            below = None if ".." in name.split("/") else _relative(_plain(path), self._bases[0])
            if below is not None:
                fits = self._look_up(below)
                fits_several |= len(fits) > 1
                yield fits
            # Links and `..` behind them: the file system knows what the name does not tell.
            yield self._by_real_path.get(os.path.realpath(path), ())
        if "/" not in name and not fits_several:
            inside = (self._look_up(f"{folder}/{name}") for folder in _SUBFOLDERS)
            yield tuple(dict.fromkeys(chain.from_iterable(inside)))

    def _look_up(self, below: str) -> tuple[Path, ...]:
        """By the name as it is, by another form of its accents, then by the name with another suffix
        or none: corpora are converted, and their tables stay."""
        if below in self._exact:
            return (self._exact[below],)
        name = same_name(below)
        found = self._by_path.get(name) or self._by_id.get(name)
        stem, suffix = os.path.splitext(name)
        return found or (self._by_id.get(stem, ()) if suffix.lower() in AUDIO_SUFFIXES else ())

    @cached_property
    def _by_real_path(self) -> dict[str, tuple[Path, ...]]:
        return _grouped((os.path.realpath(path), path) for path in self._audio)


def _piece(entry: Entry, path: Path, header: Header, tree: Tree, table: Path) -> Piece:
    """What of the file the row means.

    Raises:
        OmniError: one channel of several.
    """
    if entry.channel and channel_count(path) != 1:
        what = f"row {entry.number}, column channel: one channel of {shown(path.name)} is meant"
        mend = "write each channel to a file of its own: they would be mixed"
        raise OmniError(what, str(table), mend)
    start, end, fault = entry.start or 0.0, entry.end, ""
    length = header.seconds
    if end is None and entry.duration is not None and length:
        differs = f"the table says {entry.duration:g} s, the file has {length:.2f} s"
        if entry.duration > length + TOLERANCE:
            fault = differs
        elif entry.duration < length - TOLERANCE and entry.cuts_by_duration:
            end = entry.duration
        elif entry.duration < length - TOLERANCE:
            fault = f"{differs}: which part is meant? Give start and end"
    if length and (start >= length or (end or 0.0) > length + TOLERANCE):
        fault = f"the piece ends at {end or start:g} s, the file at {length:.2f} s"
    if length and end is not None and end > length - EXACT:
        end = None  # to the end: the table's times are rounded
    utterance_id = entry.id or tree.id_of(path)
    if not entry.id and (start or end is not None):
        last = length if end is None else end
        utterance_id += f"-{round(start * 1000):07d}-{round(last * 1000):07d}"
    return Piece(
        utterance_id, path, Transcript("", fault) if fault else entry.transcript,
        speaker=entry.speaker, sex=entry.sex, start=start, length=end - start if end is not None else 0.0,
    )  # fmt: skip


def _refuse_other_files(entry: Entry, fits: tuple[Path, ...], finder: _Finder, table: Path) -> None:
    """Refuse a row whose columns name different files. A path of the machine that the table comes from
    is the same file if its name is.

    Raises:
        OmniError: it does.
    """
    for column, name in entry.others:
        others = finder.find(name) if "\0" not in name else ()
        if others == fits if others and fits else _stem(name) == _stem(entry.audio):
            continue
        what = (
            f"row {entry.number}: column {entry.column} names {shown(entry.audio)[:100]}, column "
            f"{column} {shown(name)[:100]}"
        )
        raise OmniError(what, str(table), "keep the one that is meant")


def _stem(name: str) -> str:
    """What a file is called, whatever its folder and its format."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return same_name(os.path.splitext(last)[0])


def _missing(entry: Entry, fits: Sequence[Path], tree: Tree) -> Piece:
    why = NO_FILE
    if fits:
        one, two = (shown(_below(path, tree)) for path in fits[:2])
        why = f"{shown(entry.audio)[:200]} fits {len(fits)} files, {one} and {two} among them: name one"
    name = entry.audio.replace("\\", "/")
    stem, suffix = os.path.splitext(name)
    utterance_id = entry.id or tidy_id(stem if suffix.lower() in AUDIO_SUFFIXES else name)
    return Piece(
        utterance_id, None, entry.transcript, speaker=entry.speaker, sex=entry.sex, missing=why
    )


def _renamed(missing: list[Piece], made: list[Piece]) -> list[Piece]:
    """Rows without a file, none with another row's id."""
    taken = {piece.id for piece in made}
    counts: Counter[str] = Counter()
    out = []
    for piece in missing:
        name = piece.id
        while name in taken:
            counts[piece.id] += 1
            name = f"{piece.id} ({counts[piece.id] + 1})"
        taken.add(name)
        out.append(replace(piece, id=name))
    return out


def _require_same(one: Entry, two: Entry, path: Path, table: Path) -> None:
    if one.transcript.text.split() != two.transcript.text.split() or one.id != two.id:
        what = f"rows {one.number} and {two.number} name one file, {shown(path.name)}, with other words or ids"
        raise OmniError(what, str(table), "keep one, or give start and end of each")


def _require_unique_ids(pieces: Iterable[tuple[Entry, Piece]], table: Path) -> None:
    by_id: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry, piece in pieces:
        by_id[piece.id].append(entry)
    for utterance_id, entries in by_id.items():
        if len(entries) > 1:
            rows = f"rows {entries[0].number} and {entries[1].number}"
            what = f"two audio files for {shown(utterance_id)}: {rows}"
            raise OmniError(what, str(table), "rename one of them, or leave its row out")


def _below(path: Path, tree: Tree) -> str:
    return path.relative_to(tree.folder).as_posix()


def _plain(path: str | Path) -> str:
    return os.path.normpath(os.path.abspath(path))


def _relative(path: str, folder: str) -> str | None:
    """`path` below `folder`, by their names alone."""
    prefix = folder.rstrip("/") + "/"
    return path.removeprefix(prefix) if path.startswith(prefix) else None


def _grouped(pairs: Iterable[tuple[str, Path]]) -> dict[str, tuple[Path, ...]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for key, path in pairs:
        found[key].append(path)
    return {key: tuple(paths) for key, paths in found.items()}
