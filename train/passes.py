"""One pass over the data as a pure function of (seed, pass number): the global order of batches.

Nothing is read here: lengths come from the shards' index. Since every rank and worker computes
the same order and takes slices of it, exact resume, equal ranks and "every sample once" are one
property, and a test can hold it without a model. Must not know files or features.

Shards are taken in a seeded order, in pools of at least `buffer` samples; a pool's samples
are shuffled together and cut into batches of like length. Memory therefore holds one pool,
whatever the size of the data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omni.errors import OmniError

# Lengths are blurred by this before sorting: the same neighbours would meet in every pass else.
LENGTH_BLUR = 0.1


@dataclass(frozen=True)
class Shard:
    """One shard as the plan sees it.

    path: the tar; n_frames: (n,) frames of each sample, in the order of the tar;
    places: which of them take part (all but held-out speakers); weight: times it is seen a pass;
    ends: (n,) bytes of the tar at which each sample ends, or () where nobody has looked: a reader
    that wants a sample of it then walks it whole.
    """

    path: str
    n_frames: tuple[int, ...]
    places: tuple[int, ...]
    weight: float = 1.0
    ends: Sequence[int] = ()


@dataclass(frozen=True)
class Pool:
    """Shards to read together, and the batches made of their samples.

    shards: indices into the list of shards. batches: each a tuple of (shard, place); a sample may
    come from the pool before.
    """

    shards: tuple[int, ...]
    batches: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class BatchRule:
    """How batches are cut: `size` samples, or if `frames` is set as many as keep
    longest * count within `frames`; `buffer` samples are shuffled together at least."""

    size: int = 32
    frames: int = 0
    buffer: int = 2048

    def __post_init__(self) -> None:
        if self.size < 1 or self.buffer < 1 or self.frames < 0:
            raise OmniError("batch size and shuffle buffer must be at least 1")


def plan_pass(shards: Sequence[Shard], seed: int, number: int, rule: BatchRule) -> Iterator[Pool]:
    """The pools of pass `number`, in order; every sample of every shard once (times its weight).

    Raises:
        OmniError: there is no sample at all.
    """
    if not any(shard.places for shard in shards):
        raise OmniError("no training samples", mend="extract a training split first")
    rng = np.random.default_rng([seed, number])
    visits = _visits(shards, rng)
    carried: list[tuple[int, int]] = []
    begin = 0
    while begin < len(visits):
        end, pool = begin, list(carried)
        while end < len(visits) and len(pool) < len(carried) + rule.buffer:
            pool += [(visits[end], place) for place in shards[visits[end]].places]
            end += 1
        pool = [pool[i] for i in rng.permutation(len(pool))]
        # What fills no whole batch goes on to the next pool: taken before the sort, so that
        # it is not always the longest.
        spare = len(pool) % rule.size if not rule.frames and end < len(visits) else 0
        carried = pool[len(pool) - spare :]
        batches = _cut(pool[: len(pool) - spare], shards, rule, rng)
        shuffled = tuple(batches[i] for i in rng.permutation(len(batches)))
        yield Pool(tuple(visits[begin:end]), shuffled)
        begin = end


def _visits(shards: Sequence[Shard], rng: np.random.Generator) -> list[int]:
    """Indices of shards in the order they are read; a weight of 2.25 is two visits, and a third
    in a quarter of the passes."""
    times = np.array([shard.weight for shard in shards])
    counts = np.floor(times).astype(int) + (rng.random(len(shards)) < times % 1)
    if not counts.any():  # all weights are fractions and none was drawn: a pass is never empty
        counts[int(np.argmax(times))] = 1
    visits = np.repeat(np.arange(len(shards)), counts)
    return [int(v) for v in rng.permutation(visits)]


def _cut(
    pool: Sequence[tuple[int, int]],
    shards: Sequence[Shard],
    rule: BatchRule,
    rng: np.random.Generator,
) -> list[tuple[tuple[int, int], ...]]:
    """Batches of neighbours in (blurred) length."""
    frames = np.array([shards[s].n_frames[p] for s, p in pool], dtype=float)
    blur = rng.uniform(1 - LENGTH_BLUR, 1 + LENGTH_BLUR, len(pool))
    order = [int(i) for i in np.argsort(frames * blur, kind="stable")]
    batches: list[tuple[tuple[int, int], ...]] = []
    batch: list[tuple[int, int]] = []
    longest = 0.0
    for i in order:
        widest = max(longest, frames[i])
        if rule.frames:
            full = bool(batch) and widest * (len(batch) + 1) > rule.frames
        else:
            full = len(batch) == rule.size
        if full:
            batches.append(tuple(batch))
            batch, widest = [], frames[i]
        batch.append(pool[i])
        longest = widest
    if batch:
        batches.append(tuple(batch))
    return batches
