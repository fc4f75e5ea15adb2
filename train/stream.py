"""The trainer's supply of batches: webdataset shards, streamed in the order that passes.py fixes.

Each rank takes every world-th sample of a batch and each worker every workers-th batch of the
stream, so the batches are the same for any number of either, and a position (pass, batch) is all
that a resumed run needs. A shard that holds other samples than its index says stops the run.

Must not know the model.
"""

import contextlib
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from omni.bridge.frames import pad_features
from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.files import locate
from omni.formats.shards import Sample
from train.pairs import WrongPairs
from train.passes import BatchRule, Pool, Shard, plan_pass

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Id = tuple[int, int]  # (shard, place in it)
T = TypeVar("T")


class Position(NamedTuple):
    """A place in the stream: number of the pass, and of the batch within it."""

    number: int
    batch: int


START = Position(0, 0)


class Packed(NamedTuple):
    """One rank's share of a global batch.

    features: (B, T, d) or (B, L, T, d) as stored, zero-padded; B may be 0 where a batch has fewer
    samples than there are ranks. lengths: (B,) int64 frames. texts, keys: of each sample.
    at: where the batch stands; after: where to go on from; n_global: samples on all ranks.
    """

    features: Tensor
    lengths: Tensor
    texts: list[str]
    keys: list[str]
    at: Position
    after: Position
    n_global: int


@dataclass(frozen=True)
class StreamSpec:
    """What decides the order of batches, and this rank's share of them.

    augment: changes the frames (T, d) of a sample with a generator seeded by (seed, pass, key, and
    which copy it is in the pass), so that it is the same on any rank and after any resume.
    shuffle_texts: texts of all samples by shard and place, for the control that gives each audio
    a text of another; None gives it its own.
    """

    shards: Sequence[Shard]
    seed: int
    rule: BatchRule
    rank: int = 0
    world: int = 1
    augment: Augment | None = None
    shuffle_texts: Sequence[Sequence[str]] | None = None


def batches(
    spec: StreamSpec,
    start: Position = START,
    workers: int = 0,
    pin: bool = False,
    depth: int = 4,
) -> Generator[Packed]:
    """Batches from `start` on, pass after pass without end, read ahead of their use.

    Args:
        workers: processes that read and pad; 0 does it in a thread of this process.
        pin: copy into page-locked memory, for a GPU.
        depth: batches kept ready.

    Raises:
        OmniError: a damaged shard, or one that disagrees with its index.
    """
    stream = Stream(spec, start)
    source = ahead(iter(stream), depth) if workers == 0 else _pool(stream, workers, depth)
    with contextlib.closing(source):
        for item in source:
            if isinstance(item, OmniError):
                raise item
            if pin:
                item = item._replace(features=item.features.pin_memory())
            yield item


def _pool(stream: "Stream", workers: int, depth: int) -> Generator[Any]:
    """The items of worker processes, which end with this generator or with this process."""
    loader = DataLoader(
        stream, batch_size=None, num_workers=workers, prefetch_factor=depth, collate_fn=_same,
        worker_init_fn=partial(_end_with_parent, os.getpid()),
    )  # fmt: skip
    source = iter(loader)
    try:
        yield from source
    finally:
        # A traceback may hold this frame for long; torch ends the workers only once it is gone.
        source._shutdown_workers()  # type: ignore[attr-defined]


def _end_with_parent(parent: int, worker: int) -> None:
    """End this worker when its parent is gone: killed, it can't say goodbye, and a worker that
    waits for a place in its queue would wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


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
        try:
            jobs = _jobs(self.spec, self.start, worker, workers)
            # The next pool is read while this one is used up.
            for job, samples in ahead(((job, _read(self.spec, job)) for job in jobs), 1):
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
    """

    ids: tuple[Id, ...]
    copies: tuple[int, ...]
    texts: tuple[str, ...] | None
    at: Position
    after: Position
    n_global: int


@dataclass(frozen=True)
class _Job:
    """One pool of one worker: what to read, what to make of it, and what to keep after it."""

    wanted: dict[int, set[int]]
    shares: list[_Share]
    later: frozenset[Id]


def _jobs(spec: StreamSpec, start: Position, worker: int, workers: int) -> Iterator[_Job]:
    """The pools of all passes, reduced to what this worker of this rank has to do."""
    pairs = None if spec.shuffle_texts is None else WrongPairs(spec.shards, spec.shuffle_texts)
    k = 0  # batches since the start, counted alike by every worker
    number, first = start
    while True:
        pools = list(plan_pass(spec.shards, spec.seed, number, spec.rule))
        copies = _copies(spec.shards, pools)
        n_batches = sum(len(pool.batches) for pool in pools)
        per_pool: list[list[_Share]] = []
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
                            )
                        )
                    k += 1
                index += 1
            per_pool.append(shares)
        last = {i: w for w, shares in enumerate(per_pool) for s in shares for i in s.ids}
        held: set[Id] = set()
        for w, (pool, shares) in enumerate(zip(pools, per_pool, strict=True)):
            wanted: dict[int, set[int]] = {}
            for shard in set(pool.shards):
                places = [p for p in spec.shards[shard].places if last.get((shard, p), -1) >= w]
                fresh = {p for p in places if (shard, p) not in held}
                if fresh:
                    wanted[shard] = fresh
                    held |= {(shard, p) for p in fresh}
            held = {i for i in held if last[i] > w}
            if wanted or shares:
                yield _Job(wanted, shares, frozenset(held))
        number, first = number + 1, 0


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


def _read(spec: StreamSpec, job: _Job) -> dict[Id, Sample]:
    """The wanted samples, from a walk over each shard that holds one."""
    samples: dict[Id, Sample] = {}
    width = 0
    for shard in sorted(job.wanted):
        entry, places = spec.shards[shard], job.wanted[shard]
        n = 0
        for place, sample in enumerate(shard_files.read_shard(entry.path)):
            n += 1
            width = shard_files.same_width(locate(entry.path), sample, width)
            if place < len(entry.n_frames):
                got, told = sample.features.shape[-2], entry.n_frames[place]
                if got != told:
                    raise OmniError(
                        f"sample {sample.key} has {got} frames, the index says {told}",
                        where=entry.path,
                        mend="extract the shard again",
                    )
            if place in places:
                samples[shard, place] = sample
        if n != len(entry.n_frames):
            raise OmniError(
                f"{n} samples, the index says {len(entry.n_frames)}",
                where=entry.path,
                mend="extract the shard again",
            )
    return samples


def _pack(spec: StreamSpec, share: _Share, held: dict[Id, Sample]) -> Packed:
    samples = [held[i] for i in share.ids]
    texts = list(share.texts) if share.texts is not None else [s.meta["text_norm"] for s in samples]
    frames = [sample.features for sample in samples]
    if spec.augment is not None:
        frames = [
            spec.augment(x, _generator(spec.seed, share.at.number, s.key, copy))
            for x, s, copy in zip(frames, samples, share.copies, strict=True)
        ]
    if frames:
        features, lengths = pad_features(frames)
    else:
        features, lengths = torch.empty(0, 1, 1), torch.empty(0, dtype=torch.long)
    keys = [sample.key for sample in samples]
    return Packed(features, lengths, texts, keys, share.at, share.after, share.n_global)


def _generator(seed: int, number: int, key: str, copy: int) -> np.random.Generator:
    """Of one sample's augmentation. The first copy's seed has no fourth number, so that a run
    without weights draws what it always drew."""
    return np.random.default_rng([seed, number, crc32(key.encode()), *([copy] if copy else [])])


def ahead(source: Iterator[T], depth: int) -> Generator[T]:
    """The items of `source`, computed up to `depth` ahead in a thread; its errors come along."""
    items: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, item: Any) -> None:
        while not stop.is_set():
            try:
                return items.put((kind, item), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in source:
                put("item", item)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:  # handed to the consumer, which raises it
            put("error", error)

    thread = threading.Thread(target=work, daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            kind, item = items.get()
            if kind == "item":
                yield item
            elif kind == "error":
                raise item
            else:
                return
    finally:
        stop.set()
        thread.join()


def _same(item: T) -> T:
    return item
