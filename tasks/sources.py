"""What there is to ask about: the utterances of extracted splits, or of manifests, with their labels.

Must not know what is asked.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.manifest import Manifest, is_noise, read_manifest
from omni.formats.splits import SplitIndex, find_splits, role_here
from omni.formats.tasks import Input

# Of LibriSpeech's splits: CC BY 4.0, as OpenSLR's page of resource 12 says.
_LIBRISPEECH = (
    "train-clean-",
    "train-other-",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
)
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True, order=True)
class Heard:
    """An utterance to ask about. text: normalised, "" where nothing is said; sex: "F", "M" or ""."""

    id: str
    split: str
    text: str
    speaker: str
    sex: str
    licence: str

    @property
    def words(self) -> list[str]:
        """Its words."""
        return self.text.split()


@dataclass(frozen=True)
class Sources:
    """All utterances in order of id, and what they were read from."""

    heard: tuple[Heard, ...]
    inputs: tuple[Input, ...]


def gather(
    roots: Sequence[str],
    manifests: Sequence[Path] = (),
    role: str = "train",
    licence: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> Sources:
    """Utterances of all splits of a role below `roots`, and of the manifests.

    Args:
        role: "train" or "eval": what the table is for.
        licence: of splits whose own is not known.
        say: told which splits were taken and which were passed over.

    Raises:
        OmniError: a split named alone that has the other role; nothing with a transcript; an id in
            two splits.
    """
    found: list[Heard] = []
    inputs: list[Input] = []
    for name, there, rows in _splits(roots, manifests):
        if there != role:
            say(f"{name} is passed over: its role is {there}")
            continue
        mine = sorted(
            Heard(i, name, text, speaker, sex, _licence(name, licence))
            for i, text, speaker, sex in rows
            if text or is_noise(name)
        )
        found += mine
        inputs.append({"name": name, "n": len(mine), "sha256": _digest(mine)})
    if not found:
        places = ", ".join([*roots, *map(str, manifests)])
        raise OmniError(
            f"no utterance with a transcript in a split that is for {role}", places,
            "a split that judges is never trained on: --mini makes a table that judges"
            if role == "train" else "give --shards a split that evaluates",
        )  # fmt: skip
    found.sort()
    for one, two in itertools.pairwise(found):
        if one.id == two.id:
            raise OmniError(f"utterance {one.id} is in two splits", f"{one.split} and {two.split}")
    return Sources(tuple(found), tuple(inputs))


_Row = tuple[str, str, str, str]  # id, text, speaker, sex


def _splits(
    roots: Sequence[str], manifests: Sequence[Path]
) -> Iterable[tuple[str, str, Iterable[_Row]]]:
    """(name, role, rows) of each split, in order of name."""
    listed = {path: read_manifest(path) for path in manifests}
    splits = {s.split: s for root in roots for s in find_splits(root)}
    twice = {m.split for m in listed.values()} & splits.keys()
    if twice or len({m.split for m in listed.values()}) < len(listed):
        raise OmniError(
            "a split is given twice", ", ".join(sorted(twice)) or "--manifests",
            "name it in --shards or in --manifests, once",
        )  # fmt: skip
    both: dict[str, tuple[str, Iterable[_Row]]] = {
        m.split: (m.role, _of_manifest(m)) for m in listed.values()
    } | {name: (role_here(split), _of_split(split)) for name, split in splits.items()}
    for name in sorted(both):
        yield name, *both[name]


def _of_split(split: SplitIndex) -> Iterable[_Row]:
    for entry in split.shards:
        for _, meta in shard_files.read_metas(entry.path):
            yield meta["id"], meta["text_norm"], meta["speaker"], meta.get("sex", "")


def _of_manifest(manifest: Manifest) -> Iterable[_Row]:
    for u in manifest.utterances:
        if u.is_complete:
            yield u.id, u.text_norm, u.speaker, u.sex


def _licence(split: str, given: str) -> str:
    if given:
        return given
    return "CC-BY-4.0" if split.startswith(_LIBRISPEECH) else UNKNOWN_LICENCE


def _digest(heard: Iterable[Heard]) -> str:
    """Of all that a row is made from, in order."""
    digest = hashlib.sha256()
    for h in heard:
        digest.update(json.dumps([h.id, h.text, h.speaker, h.sex, h.licence]).encode() + b"\n")
    return digest.hexdigest()
