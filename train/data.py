"""Which samples train and which evaluate: splits by role, one fingerprint, no utterance in both.

Must not know the model or the order of batches.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omni.encoder import frames_per_second
from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.shards import Sample
from omni.formats.splits import (
    SplitIndex,
    _usable,
    check_fingerprints,
    find_splits,
    read_ids,
    read_split,
)
from train.passes import Shard

FEWEST_STEPS, MOST_STEPS = 100, 8000
HELD_OUT = 0.01  # share of speakers that evaluate where no split does
HELD_OUT_NAME = "held-out"  # what their figures are called


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is judged by.

    shards: of the training splits. eval_sets: samples by split, in memory. select: the split
    whose CE picks the best checkpoint. fingerprint(_config): of all features. splits: name, role,
    n of everything used, for the provenance. held_out: ids that `_hold_out` took from training,
    empty where a split evaluates. note: one line for the user, or "".
    """

    shards: list[Shard]
    eval_sets: dict[str, list[Sample]]
    select: str
    fingerprint: str
    fingerprint_config: dict[str, Any]
    splits: list[dict[str, Any]]
    held_out: tuple[str, ...] = ()
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
        longest = max(s.n_frames[i] for s in self.shards for i in s.places)
        return longest / frames_per_second(self.fingerprint_config)


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
    if not any(_usable(split, e.n_text) for split, _ in train for e in split.shards):
        found = ", ".join(f"{split.split} ({split.role}, {split.n})" for split, _ in weighted)
        raise OmniError(
            "no training samples with transcripts", where=found or ", ".join(roots),
            mend="extract a split that trains: --split demo, or train-clean-100",
        )  # fmt: skip
    _check_apart([split for split, _ in train], judges)
    everything = [split for split, _ in train] + judges
    check_fingerprints(everything)
    shards = [
        Shard(str(entry.path), tuple(entry.n_frames), tuple(_usable(split, entry.n_text)), weight)
        for split, weight in train
        for entry in split.shards
    ]
    note = ""
    held_out: tuple[str, ...] = ()
    eval_sets = {split.split: read_split(split, eval_limit) for split in judges}
    eval_sets = {name: samples for name, samples in eval_sets.items() if samples}
    if not any(_speaks(samples) for samples in eval_sets.values()):
        shards, held_out, note = _hold_out(shards)
        trained = [split for split, _ in train]
        eval_sets[HELD_OUT_NAME] = read_ids(trained, held_out, eval_limit)
    return TrainingData(
        shards=shards,
        eval_sets=eval_sets,
        select=_selection_split(eval_sets),
        fingerprint=everything[0].fingerprint,
        fingerprint_config=everything[0].fingerprint_config,
        splits=[{"split": s.split, "role": s.role, "n": s.n} for s in everything],
        held_out=held_out,
        note=note,
    )


def _check_apart(train: Sequence[SplitIndex], judges: Sequence[SplitIndex]) -> None:
    """No shard on both sides, wherever the folders were given."""
    mine = {entry.path.resolve() for split in train for entry in split.shards}
    for split in judges:
        if any(entry.path.resolve() in mine for entry in split.shards):
            raise OmniError(
                f"split {split.split} would both train and evaluate",
                mend="give --eval-shards a split that is not trained on",
            )


def _hold_out(shards: list[Shard]) -> tuple[list[Shard], tuple[str, ...], str]:
    """Shards without the held-out samples, the ids of those, and the line that says so.

    Speakers, in order of a hash of their name, until a hundredth of them is held out; with a
    single speaker, utterances.
    """
    metas = [[meta for _, meta in shard_files.read_metas(shard.path)] for shard in shards]
    spoken = [m for part in metas for m in part if m["text_norm"]]
    key = "speaker"
    names = sorted({m[key] for m in spoken}, key=_hash)
    if len(names) < 2:
        key = "id"
        names = sorted({m[key] for m in spoken}, key=_hash)
    if len(names) < 2:
        raise OmniError("a single utterance can't both train and evaluate", shards[0].path)
    held = set(names[: max(1, round(len(names) * HELD_OUT))])
    kept: list[Shard] = []
    for shard, part in zip(shards, metas, strict=True):
        places = tuple(i for i in shard.places if part[i][key] not in held)
        kept.append(Shard(shard.path, shard.n_frames, places, shard.weight))
    ids = tuple(sorted({m["id"] for m in spoken if m[key] in held}))
    what = f"{len(held)} of {len(names)} {'speakers' if key == 'speaker' else 'utterances'}"
    return kept, ids, f"no evaluation split: {what} held out by hash ({len(ids)} utterances)"


def _speaks(samples: Sequence[Sample]) -> bool:
    """Whether anything is said in any of them."""
    return any(sample.meta["text_norm"] for sample in samples)


def _selection_split(eval_sets: dict[str, list[Sample]]) -> str:
    """The first by name that is no test split, which must not choose a checkpoint, and no noise."""
    spoken = [name for name, samples in eval_sets.items() if _speaks(samples)]
    return min(spoken, key=lambda name: (name.startswith("test"), name))


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
