"""The trainer's supply of batches: webdataset shards, streamed in the order that passes.py fixes.

Each rank takes every world-th sample of a batch and each worker every workers-th batch of the
stream, so the batches are the same for any number of either, and a position (pass, batch) is all
that a resumed run needs. A worker of a rank is a reader: it reads the samples that it packs, each
once a pass, from where they lie in their tars. A shard that holds other samples than its index says
stops the run.

**Whole shards.** That a tar is to its last byte what was written (its sha256) is checked by one
reader, once in the life of the run's processes: where the shard is first used, shards are dealt to
readers in turn. That reader finds a damaged shard before it packs a sample of it; what the others
read of it by then was held to all that is known of a single sample (its place, key, frames, that it
is finite). The run stops within the pool of the shard, with the same line whoever finds the damage.
Where ranks read copies of their own, each copy is checked in the part that was dealt to its readers.

Must not know the model.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from omni.bridge.frames import pad_features
from omni.bridge.turns import Turn
from omni.errors import OmniError
from omni.formats.shards import Sample
from train.ahead import ahead, in_workers
from train.asking import Asked
from train.augment import Drawn
from train.draws import Draws, collect
from train.pairs import WrongPairs
from train.passes import BatchRule, Pool, Shard, plan_pass
from train.reading import Id, Reader

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
DEPTH = 4  # batches that a thread keeps ready
Draw = Callable[[tuple[int, ...], np.random.Generator], Drawn]


class Position(NamedTuple):
    """A place in the stream: number of the pass, and of the batch within it."""

    number: int
    batch: int


START = Position(0, 0)


class Packed(NamedTuple):
    """One rank's share of a global batch.

    features: (B, T, d) or (B, L, T, d) as stored, zero-padded; B may be 0 where a batch has fewer
    samples than there are ranks. lengths: (B,) int64 frames, of what the projector gets.
    texts, keys: of each sample. rows: what the LM is asked and answers, a row for each sample and then
    rows of text alone; None: each text is to be repeated. at: where the batch stands; after: where to go on from; n_global:
    samples on all ranks. draws: what is still to be done to the features, by `draws.augmented`.
    """

    features: Tensor
    lengths: Tensor
    texts: list[str]
    keys: list[str]
    at: Position
    after: Position
    n_global: int
    draws: Draws | None = None
    rows: list[tuple[Turn, ...]] | None = None

    def pin_memory(self) -> "Packed":
        """The same in page-locked memory, which a GPU copies without waiting. DataLoader's own
        thread calls it too."""
        draws = None if self.draws is None else self.draws.pin_memory()
        return self._replace(features=self.features.pin_memory(), draws=draws)


@dataclass(frozen=True)
class StreamSpec:
    """What decides the order of batches, and this rank's share of them.

    augment: changes the frames (T, d) of a sample with a generator seeded by (seed, pass, key, and
    which copy it is in the pass), so that it is the same on any rank and after any resume.
    draw: instead, draws with that generator what `draws.augmented` does later to frames of a shape.
    shuffle_texts: texts of all samples by shard and place, for the control that gives each audio
    a text of another; None gives it its own. asked: a table of tasks, whose rows take the place of
    repeating.
    """

    shards: Sequence[Shard]
    seed: int
    rule: BatchRule
    rank: int = 0
    world: int = 1
    augment: Augment | None = None
    shuffle_texts: Sequence[Sequence[str]] | None = None
    draw: Draw | None = None
    asked: Asked | None = None


def batches(
    spec: StreamSpec,
    start: Position = START,
    workers: int = 0,
    pin: bool = False,
    depth: int = DEPTH,
) -> Generator[Packed]:
    """Batches from `start` on, pass after pass without end, read ahead of their use.

    Args:
        workers: processes that read and pad; 0 does it in a thread of this process.
        pin: copy into page-locked memory, for a GPU, in a thread as well.
        depth: batches kept ready, by each worker.

    Raises:
        OmniError: a damaged shard, or one that disagrees with its index.
    """
    stream = Stream(spec, start)
    if workers:
        source = in_workers(stream, workers, depth, pin)
    else:
        source = ahead((_pinned(item) if pin else item for item in stream), depth)
    with contextlib.closing(source):
        for item in source:
            if isinstance(item, OmniError):
                raise item
            yield item


def _pinned(item: Packed | OmniError) -> Packed | OmniError:
    return item.pin_memory() if isinstance(item, Packed) else item


class Stream(IterableDataset):
    """The endless dataset behind `batches`; an `OmniError` comes as its last item.

    Raised in a worker process it would reach the parent as a page of traceback.
    """

    def __init__(self, spec: StreamSpec, start: Position = START) -> None:
        super().__init__()
        self.spec, self.start = spec, start

    def __iter__(self) -> Iterator[Packed | OmniError]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        held: dict[Id, Sample] = {}
        read = Reader(self.spec.shards)
        try:
            jobs = _jobs(self.spec, self.start, worker, workers)
            # The next pool is read while this one is used up.
            for job, samples in ahead(((job, read(job.wanted, job.checked)) for job in jobs), 1):
                held |= samples
                for share in job.shares:
                    yield _pack(self.spec, share, held)
                held = {i: held[i] for i in job.later}
        except OmniError as error:
            yield error


@dataclass(frozen=True)
class _Share:
    """This rank's part of one batch.

    copies: for each sample how many of it the pass has had before. texts: wrong ones, if asked for.
    alone: rows of text alone.
    """

    ids: tuple[Id, ...]
    copies: tuple[int, ...]
    texts: tuple[str, ...] | None
    at: Position
    after: Position
    n_global: int
    alone: list[tuple[Turn, ...]]


@dataclass(frozen=True)
class _Job:
    """One pool of one reader: what to read, which shards to check whole, what to make of it, and
    what to keep after it."""

    wanted: dict[int, set[int]]
    checked: frozenset[int]
    shares: list[_Share]
    later: frozenset[Id]


def _jobs(spec: StreamSpec, start: Position, worker: int, workers: int) -> Iterator[_Job]:
    """The pools of all passes, reduced to what this worker of this rank has to do."""
    pairs = None if spec.shuffle_texts is None else WrongPairs(spec.shards, spec.shuffle_texts)
    checks = _Checks(spec.shards, spec.rank * workers + worker, spec.world * workers)
    k = 0  # batches since the start, counted alike by every worker
    number, first = start
    while True:
        pools = list(plan_pass(spec.shards, spec.seed, number, spec.rule))
        copies = _copies(spec.shards, pools)
        n_batches = sum(len(pool.batches) for pool in pools)
        per_pool: list[list[_Share]] = []
        used: set[int] = set()  # shards, by whichever reader
        index = 0
        for pool in pools:
            shares = []
            wrong = None if pairs is None else pairs.of_pool(pool)
            for b, batch in enumerate(pool.batches):
                if index >= first:
                    after = Position(number, index + 1)
                    if index + 1 == n_batches:
                        after = Position(number + 1, 0)
                    if k % workers == worker:
                        mine = slice(spec.rank, None, spec.world)
                        shares.append(
                            _Share(
                                batch[mine],
                                copies[index][mine],
                                None if wrong is None else wrong[b][mine],
                                Position(number, index),
                                after,
                                len(batch),
                                _alone(spec, number, index, n_batches),
                            )
                        )
                    used |= {shard for shard, _ in batch}
                    k += 1
                index += 1
            per_pool.append(shares)
        yield from _pass_jobs(spec.shards, pools, per_pool, checks, used)
        number, first = number + 1, 0


def _alone(spec: StreamSpec, number: int, index: int, n_batches: int) -> list[tuple[Turn, ...]]:
    """This rank's rows of text alone that go with a batch."""
    if spec.asked is None:
        return []
    return spec.asked.texts(number, index, n_batches)[spec.rank :: spec.world]


def _pass_jobs(
    shards: Sequence[Shard],
    pools: Sequence[Pool],
    per_pool: Sequence[list[_Share]],
    checks: "_Checks",
    used: Collection[int],
) -> Iterator[_Job]:
    """Each sample is read with the pool of its shard, and kept until its last batch of the pass."""
    last = {i: w for w, shares in enumerate(per_pool) for s in shares for i in s.ids}
    held: set[Id] = set()
    for w, (pool, shares) in enumerate(zip(pools, per_pool, strict=True)):
        wanted: dict[int, set[int]] = {}
        for shard in set(pool.shards):
            places = [p for p in shards[shard].places if last.get((shard, p), -1) >= w]
            fresh = {p for p in places if (shard, p) not in held}
            if fresh:
                wanted[shard] = fresh
                held |= {(shard, p) for p in fresh}
        held = {i for i in held if last[i] > w}
        checked = checks.due(shard for shard in pool.shards if shard in used)
        if wanted or checked or shares:
            yield _Job(wanted, checked, shares, frozenset(held))


class _Checks:
    """Who checks which shard whole: dealt to the readers in turn, in the order of first use, which
    every reader computes alike."""

    def __init__(self, shards: Sequence[Shard], reader: int, readers: int) -> None:
        self._shards, self._reader, self._readers = shards, reader, readers
        self._dealt: set[str] = set()  # by file: a folder may be given twice

    def due(self, pool: Iterable[int]) -> frozenset[int]:
        """Shards of a pool that this reader is the one to check."""
        mine = set()
        for shard in pool:
            path = self._shards[shard].path
            if path not in self._dealt:
                if len(self._dealt) % self._readers == self._reader:
                    mine.add(shard)
                self._dealt.add(path)
        return frozenset(mine)


def _copies(shards: Sequence[Shard], pools: Sequence[Pool]) -> list[tuple[int, ...]]:
    """For each sample of each batch of a pass how often it came before in that pass: by file, so
    that a folder given twice counts as a weight of 2 does."""
    seen: Counter[tuple[str, int]] = Counter()
    copies = []
    for batch in (batch for pool in pools for batch in pool.batches):
        counts = []
        for shard, place in batch:
            file = (shards[shard].path, place)
            counts.append(seen[file])
            seen[file] += 1
        copies.append(tuple(counts))
    return copies


def _pack(spec: StreamSpec, share: _Share, held: dict[Id, Sample]) -> Packed:
    samples = [held[i] for i in share.ids]
    texts = list(share.texts) if share.texts is not None else [s.meta["text_norm"] for s in samples]
    frames = [sample.features for sample in samples]
    chance = [
        _generator(spec.seed, share.at.number, s.key, copy)
        for s, copy in zip(samples, share.copies, strict=True)
    ]
    if spec.augment is not None:
        frames = [spec.augment(x, rng) for x, rng in zip(frames, chance, strict=True)]
    if frames:
        features, lengths = pad_features(frames)
    else:
        features, lengths = torch.empty(0, 1, 1), torch.empty(0, dtype=torch.long)
    draws = None
    if spec.draw is not None and frames:
        drawn = [spec.draw(x.shape, rng) for x, rng in zip(frames, chance, strict=True)]
        lengths = torch.tensor([one.n_out for one in drawn])
        draws = collect(drawn)
    keys = [sample.key for sample in samples]
    rows = None
    if spec.asked is not None:
        asked, number = spec.asked, share.at.number
        rows = [
            asked.turns(s.meta["id"], number, copy)
            for s, copy in zip(samples, share.copies, strict=True)
        ] + share.alone
    return Packed(
        features, lengths, texts, keys, share.at, share.after, share.n_global, draws, rows
    )


def _generator(seed: int, number: int, key: str, copy: int) -> np.random.Generator:
    """Of one sample's augmentation. The first copy's seed has no fourth number, so that a run
    without weights draws what it always drew."""
    return np.random.default_rng([seed, number, crc32(key.encode()), *([copy] if copy else [])])
