"""Which samples train and which evaluate: splits by role, one fingerprint, no utterance in both.

Must not know the model or the order of batches.
"""

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import braceexpand

from omni import shards as shard_files
from omni.errors import OmniError
from omni.evaluate import FRAMES_PER_SECOND
from omni.shards import Sample, SplitIndex
from train.plan import Shard

FEWEST_STEPS, MOST_STEPS = 100, 8000
HELD_OUT = 0.01  # share of speakers that evaluate where no split does


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is judged by.

    shards: of the training splits. eval_sets: samples by split, in memory. select: the split
    whose CE picks the best checkpoint. fingerprint(_config): of all features. splits: name, role,
    n of everything used, for the provenance. note: one line for the user, or "".
    """

    shards: list[Shard]
    eval_sets: dict[str, list[Sample]]
    select: str
    fingerprint: str
    fingerprint_config: dict[str, Any]
    splits: list[dict[str, Any]]
    note: str = ""

    def steps(self, batch_size: int, batch_frames: int) -> int:
        """Steps of a run that names none: ten passes, between FEWEST_STEPS and MOST_STEPS.

        A small corpus is learnt by heart after that; of a large one, a few thousand steps show
        whether the model listens.
        """
        lengths = [s.n_frames[i] * s.weight for s in self.shards for i in s.places]
        samples = sum(s.weight * len(s.places) for s in self.shards)
        a_pass = sum(lengths) / batch_frames if batch_frames else samples / batch_size
        return min(max(round(10 * a_pass), FEWEST_STEPS), MOST_STEPS)

    @property
    def longest_seconds(self) -> float:
        """Length of the longest training utterance: beyond it a projector was never tried."""
        return max(s.n_frames[i] for s in self.shards for i in s.places) / FRAMES_PER_SECOND


def gather(
    roots: Sequence[str],
    weights: Sequence[float] = (),
    eval_roots: Sequence[str] = (),
    eval_limit: int = 0,
) -> TrainingData:
    """Find the splits below `roots`, sort them by role, and read the evaluation samples.

    Args:
        weights: how often each root's samples are seen in a pass; empty for once.
        eval_roots: evaluate on all splits below these instead.
        eval_limit: at most so many utterances of each evaluation split, evenly spaced; 0 for all.

    Raises:
        OmniError: nothing to train on, fingerprints that differ, an id on both sides.
    """
    if weights and len(weights) != len(roots):
        raise OmniError(f"{len(weights)} weights for {len(roots)} shard folders", "--weights")
    weighted = [
        (split, weight)
        for root, weight in zip(roots, weights or [1.0] * len(roots), strict=True)
        for split in find_splits(root)
    ]
    train = [(split, weight) for split, weight in weighted if split.role == "train"]
    judges = [split for split, _ in weighted if split.role == "eval"]
    if eval_roots:
        judges = [split for root in eval_roots for split in find_splits(root)]
    if not sum(split.n for split, _ in train):
        found = ", ".join(f"{split.split} ({split.role}, {split.n})" for split, _ in weighted)
        raise OmniError(
            "no training samples", where=found or ", ".join(roots),
            mend="extract a split that trains: --split demo, or train-clean-100",
        )  # fmt: skip
    _check_apart([split for split, _ in train], judges)
    everything = [split for split, _ in train] + judges
    check_fingerprints(everything)
    shards = [
        Shard(str(entry.path), tuple(entry.n_frames), tuple(range(entry.n)), weight)
        for split, weight in train
        for entry in split.shards
    ]
    note = ""
    if judges:
        eval_sets = {split.split: read_split(split, eval_limit) for split in judges}
        eval_sets = {name: samples for name, samples in eval_sets.items() if samples}
    else:
        shards, samples, note = _hold_out(shards)
        eval_sets = {"held-out": samples[: eval_limit or None]}
    return TrainingData(
        shards=shards,
        eval_sets=eval_sets,
        select=_selection_split(eval_sets),
        fingerprint=everything[0].fingerprint,
        fingerprint_config=everything[0].fingerprint_config,
        splits=[{"split": s.split, "role": s.role, "n": s.n} for s in everything],
        note=note,
    )


def check_fingerprints(splits: Sequence[SplitIndex]) -> None:
    """All splits hold features of one encoder, layer choice and dtype.

    Raises:
        OmniError: two differ; spells out in what.
    """
    first = splits[0]
    for other in splits[1:]:
        if other.fingerprint == first.fingerprint:
            continue
        a, b = first.fingerprint_config, other.fingerprint_config
        parts = [
            f"{k}: {a.get(k)} and {b.get(k)}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)
        ]
        raise OmniError(
            f"splits {first.split} and {other.split} hold different features: {'; '.join(parts)}",
            where=str(other.shards[0].path) if other.shards else other.split,
            mend="extract both with the same encoder, layers and dtype",
        )


def read_split(split: SplitIndex, limit: int = 0) -> list[Sample]:
    """Samples of one split in memory; at most `limit`, evenly spaced (0: all)."""
    n = split.n
    chosen = set(range(n)) if not limit or limit >= n else {i * n // limit for i in range(limit)}
    samples: list[Sample] = []
    place = 0
    for entry in split.shards:
        here = range(place, place + entry.n)
        if not chosen.isdisjoint(here):
            read = zip(here, shard_files.read_shard(entry.path), strict=True)
            samples += [sample for i, sample in read if i in chosen]
        place += entry.n
    return samples


def _check_apart(train: Sequence[SplitIndex], judges: Sequence[SplitIndex]) -> None:
    """No shard on both sides, wherever the folders were given."""
    mine = {entry.path.resolve() for split in train for entry in split.shards}
    for split in judges:
        if any(entry.path.resolve() in mine for entry in split.shards):
            raise OmniError(
                f"split {split.split} would both train and evaluate",
                mend="give --eval-shards a split that is not trained on",
            )


def find_splits(root: str) -> list[SplitIndex]:
    """Split folders at or below one root: a folder, a glob, or a brace list of either."""
    folders: list[Path] = []
    for pattern in braceexpand.braceexpand(root):
        if any(c in pattern for c in "*?["):
            folders += sorted(Path(match) for match in glob.glob(pattern))
        else:
            folders.append(Path(pattern))
    return [split for folder in folders for split in shard_files.find_splits(folder)]


def _hold_out(shards: list[Shard]) -> tuple[list[Shard], list[Sample], str]:
    """Shards without the held-out samples, those samples, and the line that says so.

    Speakers, in order of a hash of their name, until a hundredth of them is held out; with a
    single speaker, utterances.
    """
    metas = [[s.meta for s in shard_files.read_shard(shard.path)] for shard in shards]
    speakers = sorted({m["speaker"] for part in metas for m in part}, key=_hash)
    key = "speaker"
    names = speakers
    if len(speakers) < 2:
        key = "id"
        names = sorted({m["id"] for part in metas for m in part}, key=_hash)
    if len(names) < 2:
        raise OmniError("a single utterance can't both train and evaluate", shards[0].path)
    held = set(names[: max(1, round(len(names) * HELD_OUT))])
    kept: list[Shard] = []
    samples: list[Sample] = []
    for shard, part in zip(shards, metas, strict=True):
        places = tuple(i for i, m in enumerate(part) if m[key] not in held)
        kept.append(Shard(shard.path, shard.n_frames, places, shard.weight))
        if len(places) < len(part):
            samples += [s for s in shard_files.read_shard(shard.path) if s.meta[key] in held]
    what = f"{len(held)} of {len(names)} {'speakers' if key == 'speaker' else 'utterances'}"
    note = f"no evaluation split: {what} held out by hash ({len(samples)} utterances)"
    return kept, samples, note


def _selection_split(names: dict[str, list[Sample]]) -> str:
    """The first by name that is no test split: test splits must not choose a checkpoint."""
    ordered = sorted(names, key=lambda name: (name.startswith("test"), name))
    if not ordered:
        raise OmniError("no evaluation samples", mend="extract a dev split, or give --eval-shards")
    return ordered[0]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
