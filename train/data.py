"""Which samples train and which evaluate: splits by role, one fingerprint, no utterance in both.

Must not know the model or the order of batches.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import braceexpand

from omni.errors import OmniError
from omni.evaluation.evaluate import FRAMES_PER_SECOND
from omni.formats import shards as shard_files
from omni.formats.files import locate
from omni.formats.manifest import is_noise
from omni.formats.shards import Sample, SplitIndex
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
    """Samples of one split in memory; at most `limit`, evenly spaced (0: all). Without transcripts
    there is nothing to judge by: they are left out, but for noise."""
    usable = _usable(split, [k for entry in split.shards for k in entry.n_text])
    n = len(usable)
    chosen = {usable[i * n // limit] for i in range(limit)} if 0 < limit < n else set(usable)
    samples: list[Sample] = []
    place = 0
    for entry in split.shards:
        here = range(place, place + entry.n)
        if not chosen.isdisjoint(here):
            read = zip(here, shard_files.read_shard(entry.path), strict=True)
            samples += [sample for i, sample in read if i in chosen]
        place += entry.n
    return samples


def _usable(split: SplitIndex, n_text: Sequence[int]) -> list[int]:
    """Places whose transcript is known: one without a letter is missing, but for noise."""
    return [i for i, n in enumerate(n_text) if n or is_noise(split.split)]


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
            left -= here
    if left:
        raise OmniError(
            f"{len(left)} held-out utterances are missing, {min(left)} among them",
            where=", ".join(split.split for split in splits),
            mend="give --shards the folders that the run was trained on",
        )
    return sorted(found, key=lambda s: s.meta["id"])


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
    """Split folders at or below one root: a folder or URL, a glob, or a brace list of either.

    Raises:
        OmniError: see `omni.formats.shards.find_splits`.
    """
    folders: list[Path] = []
    for pattern in braceexpand.braceexpand(root):
        fixed = re.split(r"[^/]*[*?\[]", pattern, maxsplit=1)[0]
        if fixed == pattern:
            folders.append(locate(pattern))
        else:
            matches = locate(fixed or ".").glob(pattern[len(fixed) :])
            folders += sorted((m for m in matches if m.is_dir()), key=str)
    return [split for folder in folders for split in shard_files.find_splits(folder)]


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
