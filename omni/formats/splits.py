"""Splits on disk: found below a folder, glob or URL, checked to go together, read into memory.

Must not know the model, nor what a split is used for.
"""

import warnings
from collections import Counter
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.files import locate
from omni.formats.manifest import is_noise, role_of
from omni.formats.patterns import find_folders
from omni.formats.records import (
    INDEX_NAME,
    FeatureConfig,
    Role,
    Sidecar,
    disagreements,
    read_index,
    read_sidecar,
)
from omni.formats.shards import Sample, damaged, same_width
from omni.formats.stores import ask, is_file, is_folder

_LOOKERS = 16  # threads: a store answers slowly, and a large split has hundreds of shards


@dataclass(frozen=True)
class ShardEntry:
    """A committed shard: its tar and what its sidecar says."""

    name: str
    path: Path
    n: int
    sidecar: Sidecar

    @property
    def n_frames(self) -> list[int]:
        """Frames of each utterance, in the tar's order."""
        return self.sidecar["n_frames"]

    @property
    def n_text(self) -> list[int]:
        """Characters of each utterance's normalised text, in the tar's order."""
        return self.sidecar["n_text"]


@dataclass(frozen=True)
class SplitIndex:
    """A complete split."""

    folder: Path
    split: str
    role: Role
    fingerprint: str
    fingerprint_config: FeatureConfig
    shards: list[ShardEntry]
    n: int  # utterances in all shards


def find_splits(root: str | Path) -> list[SplitIndex]:
    """Split folders at or below one root: a folder or URL, a glob, or a brace list of either.

    Raises:
        OmniError: no such folder, a store that does not answer, a damaged split.
    """
    # A name that is there is that folder, whatever characters it holds.
    folders = [root] if isinstance(root, Path) else find_folders(root)
    found = [split for folder in folders for split in _splits_in(folder)]
    return list({str(split.folder): split for split in found}.values())


def name_apart(splits: Sequence[SplitIndex]) -> dict[str, SplitIndex]:
    """Splits by name, each folder once; equal names get as much of the folder's path as it takes."""
    folders = list({str(split.folder.resolve()): split for split in splits}.values())
    counts = Counter(split.split for split in folders)
    named = {split.split: split for split in folders if counts[split.split] == 1}
    for name in (name for name, count in counts.items() if count > 1):
        same = [split for split in folders if split.split == name]
        parts = [PurePath(str(split.folder.resolve())).parts[:-1] for split in same]
        depth = next(d for d in range(1, 99) if len({p[-d:] for p in parts}) == len(parts))
        for split, above in zip(same, parts, strict=True):
            named["/".join([*above[-depth:], name])] = split
    return named


def bears_name(split: SplitIndex, name: str) -> bool:
    """Whether `name` is the split's own, or what `name_apart` made of it."""
    above = PurePath(str(split.folder.resolve())).parts[:-1]
    return f"/{'/'.join(above)}/{split.split}".endswith(f"/{name}")


def role_here(split: SplitIndex) -> str:
    """What the split does here. Shards made when only dashed names were known as evaluation's hold
    the role "train" under a name that says otherwise: nobody means to train on `test`. A name that
    tells nothing leaves it at what extraction was told."""
    if split.role != "train":
        return split.role
    try:
        return "eval" if role_of(split.split) == "eval" else "train"
    except OmniError:  # train_dev, validated: made with --role
        return "train"


def open_split(folder: str | Path) -> SplitIndex:
    """The shards of a finished split.

    Raises:
        OmniError: no index (the extraction is not finished), another schema, a shard gone, an index
            that contradicts a sidecar.
    """
    folder = locate(folder)
    index = read_index(folder)
    paths = [folder / f"{shard['name']}.tar" for shard in index["shards"]]
    with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="sidecar") as pool:
        sidecars = list(pool.map(read_sidecar, paths))
    entries = []
    for shard, path, sidecar in zip(index["shards"], paths, sidecars, strict=True):
        if differing := disagreements(shard, index, sidecar):
            raise damaged(path, f"its sidecar and the index disagree in {', '.join(differing)}")
        entries.append(ShardEntry(shard["name"], path, sidecar["n"], sidecar))
    n = sum(entry.n for entry in entries)
    if n != index["n"]:
        raise damaged(folder / INDEX_NAME, f"`n` is {index['n']}, its shards hold {n}")
    return SplitIndex(
        folder,
        index["split"],
        index["role"],
        index["fingerprint"],
        index["fingerprint_config"],
        entries,
        n,
    )


def read_split(split: SplitIndex, limit: int = 0, skip: Container[int] = ()) -> list[Sample]:
    """Samples of one split in memory; at most `limit`, evenly spaced (0: all). Without transcripts
    there is nothing to judge by: they are left out, but for noise.

    Args:
        skip: places in the split, counted over its shards, to leave out as well.
    """
    places = usable_places(split, [k for entry in split.shards for k in entry.n_text])
    usable = [place for place in places if place not in skip]
    n = len(usable)
    chosen = {usable[i * n // limit] for i in range(limit)} if 0 < limit < n else set(usable)
    samples: list[Sample] = []
    place, width = 0, 0
    for entry in split.shards:
        here = range(place, place + entry.n)
        if not chosen.isdisjoint(here):
            for i, sample in zip(here, shard_files.read_shard(entry.path), strict=True):
                width = same_width(entry.path, sample, width)
                if i in chosen:
                    samples.append(sample)
        place += entry.n
    return samples


def read_ids(splits: Sequence[SplitIndex], ids: Sequence[str], limit: int = 0) -> list[Sample]:
    """The utterances of these ids, at most `limit`, evenly spaced (0: all), in order of id.

    Raises:
        OmniError: one is not there.
    """
    n = len(ids)
    left = {ids[i * n // limit] for i in range(limit)} if 0 < limit < n else set(ids)
    found: list[Sample] = []
    for path in (entry.path for split in splits for entry in split.shards):
        if not left:
            break
        here = left & {meta["id"] for _, meta in shard_files.read_metas(path)}
        if here:
            found += [s for s in shard_files.read_shard(path) if s.meta["id"] in here]
            same_width(path, found[-1], found[0].features.shape[-1])
            left -= here
    if left:
        raise OmniError(
            f"{len(left)} held-out utterances are missing, {min(left)} among them",
            where=", ".join(split.split for split in splits),
            mend="give --shards the folders that the run was trained on",
        )
    return sorted(found, key=lambda s: s.meta["id"])


def check_fingerprints(splits: Sequence[SplitIndex]) -> None:
    """All splits hold features of one encoder, layer choice and dtype.

    Raises:
        OmniError: two differ; spells out in what.
    """
    first = splits[0]
    for other in splits[1:]:
        if other.fingerprint == first.fingerprint:
            continue
        a, b = dict(first.fingerprint_config), dict(other.fingerprint_config)
        parts = [
            f"{k}: {a.get(k)} and {b.get(k)}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)
        ]
        raise OmniError(
            f"splits {first.split} and {other.split} hold different features: {'; '.join(parts)}",
            where=str(other.shards[0].path) if other.shards else other.split,
            mend="extract both with the same encoder, layers and dtype",
        )


def _splits_in(root: Path) -> list[SplitIndex]:
    """Every finished split in `root` (or `root` itself), by name; unfinished ones are warned of.

    Raises:
        OmniError: no such folder, a store that does not answer, a damaged split.
    """
    if not is_folder(root):
        raise OmniError("no such shard folder", str(root), "make it with omni-extract")
    if is_file(root / INDEX_NAME):
        return [open_split(root)]
    _warn_if_unfinished(root)
    splits = []
    for folder in ask(root, lambda p: sorted(path for path in p.iterdir() if path.is_dir())):
        if is_file(folder / INDEX_NAME):
            splits.append(open_split(folder))
        else:
            _warn_if_unfinished(folder)
    return splits


def _warn_if_unfinished(folder: Path) -> None:
    if ask(folder, lambda p: any(p.glob("*.tar"))):
        warnings.warn(f"{folder} is not finished and left out", stacklevel=2)


def usable_places(split: SplitIndex, n_text: Sequence[int]) -> list[int]:
    """Places whose transcript is known: one without a letter is missing, but for noise."""
    return [i for i, n in enumerate(n_text) if n or is_noise(split.split)]
