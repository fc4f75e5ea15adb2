"""What a shard is made from: its rows of the manifest and the bytes of their audio, as two hashes.

The plan's hash takes the audio by its sha256: it is the same wherever the corpus lies, and tells every
change. The stamp takes it by size and time of change, which costs a look at the folder instead of a look
at every byte. So a rerun compares stamps, and reads the files of a shard only where they differ: a corpus
that was copied keeps its shards. Reading costs little while extracting: a FLAC has a quarter of the bytes
of the samples that are hashed anyway. Must not know how features are made or stored.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from omni.formats.manifest import LABELS, Utterance

# A file of which utterances are pieces is hashed once, not for each: the plan mixes all of them.
_FILES_REMEMBERED = 1 << 16
# What says where audio is or what is known of it; the audio itself is hashed instead. How it is spoken
# is joined to a shard's samples by their ids, and stands in no shard.
_NOT_CONTENT = {"audio", "n_samples", "sample_rate", "problem", "note", *LABELS}


class AudioFile(NamedTuple):
    """A file by its bytes, and cheaply; both empty where there is none that is to be read."""

    sha256: str
    stamp: str  # size and time of change


NO_FILE = AudioFile("", "")


def stamp_of(utterance: Utterance, path: Path) -> str:
    """The stamp of an utterance's file, without reading it."""
    return _stamp(path) if utterance.is_complete else ""


def audio_file(utterance: Utterance, path: Path) -> AudioFile:
    """Both of an utterance's file; a file that can't be read has a stamp and no sha256."""
    stamp = stamp_of(utterance, path)
    if not stamp:
        return NO_FILE
    is_piece = bool(utterance.start or utterance.length)
    return AudioFile(_piece_sha256(path, stamp) if is_piece else _sha256(path), stamp)


def forget_files() -> None:
    """Read every file again that is asked for, though its stamp is the same."""
    _piece_sha256.cache_clear()


def inputs_hash(rows: Iterable[tuple[Utterance, str]]) -> str:
    """sha256 over the rows, in the plan's order, each with a name of its audio.

    Every column counts that a sample's meta or its audio could depend on, those to come too: who adds one
    that a shard doesn't hold names it in _NOT_CONTENT, or all shards there are would be made anew.
    """
    digest = hashlib.sha256()
    names = [field.name for field in fields(Utterance) if field.name not in _NOT_CONTENT]
    for utterance, audio in rows:
        # A header that can't be read is no change of a file whose bytes are the same.
        missing = "" if utterance.is_complete else utterance.problem.value
        row = [*(getattr(utterance, name) for name in names), missing, audio]
        digest.update(json.dumps(row, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


@lru_cache(maxsize=_FILES_REMEMBERED)
def _piece_sha256(path: Path, stamp: str) -> str:
    """`stamp` is part of the question: a file that changes is read again."""
    return _sha256(path)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
