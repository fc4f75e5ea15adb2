"""A shard in the making: what comes back from the encoder is split, stored and committed behind it.

    many threads (hands)              a thread of its own
    float16 or int8, npy, crc ──►  hash and append, in the plan's order ──► sync, rename, sidecar

The thread that encodes hands over batches and goes on with the next shard while this one waits for the
disk. Must not know how features are computed, or what other shards there are.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from extract.ahead import Decoded
from extract.encode import Encoded, Pending
from extract.inputs import inputs_hash
from omni.formats.manifest import Problem, Utterance
from omni.formats.records import Environment, SampleMeta, Sidecar
from omni.formats.shard_writer import (
    EncodedSample,
    ShardWriter,
    SplitSpec,
    UnfitError,
    encode_sample,
)

HANDS = 4  # threads that store utterances and fill batches, where as many decode
_STORED_AHEAD = 4  # utterances stored and not yet appended: an hour's are 184 MB


@dataclass(frozen=True)
class Failure:
    """An utterance that is not in the shard, and why."""

    id: str
    problem: Problem
    reason: str


@dataclass
class Written:
    """What became of a batch."""

    utterances: int = 0
    samples: int = 0
    failures: list[Failure] = field(default_factory=list)


class Making:
    """One shard, whole or not at all. `_write` and `_commit` alone run in its own thread.

    Args:
        spec: the split.
        shard: its number.
        stages: names of the stages whose seconds are counted.
        hands: threads shared by all shards.
    """

    def __init__(
        self, spec: SplitSpec, shard: int, stages: Iterable[str], hands: ThreadPoolExecutor
    ) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self.unsettled = 0  # batches handed over whose outcome was not counted yet
        self.filled = False  # every batch was handed over
        self._dtype, self._hands = spec.dtype, hands
        self._writer = ShardWriter(spec, shard)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending: deque[Pending] = deque()  # appended where one encodes, consumed in order
        self._content, self._stamps = list[tuple[Utterance, str]](), list[tuple[Utterance, str]]()
        self._committed: Future[Sidecar] | None = None

    def note(self, item: Decoded) -> None:
        """An utterance that the shard is made from, in the plan's order."""
        self.seconds["decode"] += item.seconds
        self._content.append((item.utterance, item.file.sha256))
        self._stamps.append((item.utterance, item.file.stamp))

    def fail(self, failure: Failure) -> None:
        """An utterance that never came to be encoded."""
        self._writer.fail(failure.id, failure.reason, failure.problem)

    def expect(self, meta: SampleMeta, windows: int) -> Pending:
        """An utterance whose windows will come back, after those expected before it."""
        owner = Pending(meta, windows)
        self._pending.append(owner)
        return owner

    def hand_over(self, encoded: Encoded) -> Future[Written]:
        """A batch of its windows; on a card it may still be computed."""
        self.unsettled += 1
        return self._thread.submit(self._write, encoded)

    def start_commit(self, where: Callable[[str], Environment]) -> None:
        """Sync and name the file in the background, once all is written and counted.

        Args:
            where: what the bytes may depend on besides, told the stamp of the inputs.
        """
        if self._committed is None:
            self._committed = self._thread.submit(self._commit, where)

    @property
    def is_committed(self) -> bool:
        """Whether `sidecar` would not wait."""
        return self._committed is not None and self._committed.done()

    def sidecar(self) -> Sidecar:
        """Of the shard, once it is committed; raises what kept it from that."""
        assert self._committed is not None, "start_commit comes first"
        return self._committed.result()

    def close(self) -> None:
        """Wait for what its thread is doing, a commit included; drop what was not committed."""
        # Its file must not be closed under a thread that writes to it.
        self._thread.shutdown(cancel_futures=True)
        self._writer.close()

    def _commit(self, where: Callable[[str], Environment]) -> Sidecar:
        environment = where(inputs_hash(self._stamps))
        return self._writer.commit(inputs_hash(self._content), environment, self.seconds)

    def _write(self, encoded: Encoded) -> Written:
        batch, written = encoded.batch, Written()
        try:
            for window, reason in encoded.failed:
                window.owner.give_up(reason)
            if batch is not None:
                batch.ready(self.seconds)
            start = time.perf_counter()
            if batch is not None:
                pieces = batch.features.split(batch.counts, dim=-2)
                for piece, (owner, place) in zip(pieces, batch.origins, strict=True):
                    owner.take(place, piece.numpy())
            for done, sample in in_order(self._hands, self._store, self._whole(), _STORED_AHEAD):
                self._append(done, sample, written)
            if batch is not None:
                for owner, place in batch.origins:
                    owner.keep(place)
            self.seconds["write"] += time.perf_counter() - start
        finally:
            if batch is not None:
                batch.done()
        return written

    def _whole(self) -> Iterator[Pending]:
        """Utterances all of whose windows came back and whose turn it is."""
        while self._pending and self._pending[0].windows_left == 0:
            yield self._pending.popleft()

    def _store(self, done: Pending) -> tuple[Pending, EncodedSample | None]:
        """Runs in one of the hands."""
        if not done.problem:
            try:
                return done, encode_sample(done.meta, done.joined(), self._dtype)
            except UnfitError as error:
                done.problem, done.reason = error.problem, error.what
        return done, None

    def _append(self, done: Pending, sample: EncodedSample | None, written: Written) -> None:
        """An utterance into the shard, or among its failures."""
        if sample is None:
            failure = Failure(done.meta["id"], done.problem, done.reason)
            self.fail(failure)
            written.failures.append(failure)
        else:
            self._writer.append(sample)
            written.utterances += 1
            written.samples += done.meta["n_samples"]


T = TypeVar("T")
U = TypeVar("U")


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], U], items: Iterable[T], most: int
) -> Iterator[U]:
    """`map` in a pool's threads, of which at most `most` results wait to be taken."""
    waiting: deque[Future[U]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
