"""Utterances to shards: decode in threads, log-mel and Whisper on the device, write behind.

    threads            this thread                      one thread
    decode, sha256 ──► batches of windows, encode ──►  copy out, split, write, hash, commit

Windows of one length share a batch; utterances are written in the plan's order all the same. Batches
form inside a shard, so a shard's bytes depend on nothing before it: killed and resumed is
the same as never killed. What is wrong with one utterance, at whatever stage, is recorded and the rest
goes on. Must not know how shards are shared among processes (`extract.engines`).
"""

import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from extract.ahead import Decoded, decode_ahead
from extract.allocator import give_back_memory, keep_memory_flat
from extract.batches import Batches
from extract.encode import BatchEncoder, Encoded, OwnedWindow, Pending
from extract.inputs import inputs_hash
from omni.audio import SAMPLE_RATE
from omni.encoder import rate_config
from omni.errors import OmniError
from omni.formats.manifest import Manifest, Problem, Utterance
from omni.formats.records import Environment, FeatureConfig, SampleMeta, StoredDtype
from omni.formats.shard_writer import ShardWriter, SplitSpec, UnfitError
from omni.whisper.encoder import (
    TRIM_VERSION,
    Layers,
    WhisperEncoder,
    chunk_count,
    frame_count,
    split_windows,
)
from omni.whisper.mel import MEL_VERSION
from omni.whisper.window import EXACT, Window

_BATCHES_IN_FLIGHT = 4  # encoded, not yet written: bounds memory, hides the disk


@dataclass(frozen=True)
class Job:
    """A split to extract: what goes into which shard, and how."""

    spec: SplitSpec
    manifest: Manifest
    plan: list[list[int]]  # positions in the manifest, a list a shard
    layers: Layers
    batch_size: int  # windows
    decode_workers: int
    max_failures: int
    window: Window = EXACT

    def rows(self, shard: int) -> list[tuple[Utterance, Path]]:
        """Planned utterances of a shard, and where their files are."""
        planned = (self.manifest.utterances[i] for i in self.plan[shard])
        return [(utterance, self.manifest.audio_path(utterance)) for utterance in planned]


@dataclass
class Stats:
    """What a run did; seconds are wall time in each stage (decode: summed over its threads)."""

    utterances: int = 0
    audio_seconds: float = 0.0
    failures: int = 0
    shards: int = 0
    bytes: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"decode": 0.0, "mel": 0.0, "encode": 0.0, "write": 0.0}
    )

    def add(self, other: "Stats") -> None:
        """Take in what another run did."""
        for name in ("utterances", "audio_seconds", "failures", "shards", "bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for stage, value in other.seconds.items():
            self.seconds[stage] += value


Progress = Callable[[Stats], None]


def feature_config(
    encoder: WhisperEncoder, layers: Layers, dtype: StoredDtype, window: Window = EXACT
) -> FeatureConfig:
    """All that decides a stored value: the fingerprint is taken over it."""
    config: FeatureConfig = {
        "encoder": encoder.hash,
        "layers": layers if layers == "last" else list(layers),
        "dtype": dtype,
        "window": window.config(),
        "mel": MEL_VERSION,
        "trim": TRIM_VERSION,
    }
    return config | rate_config(encoder)


def extract_shards(
    job: Job, encoder: WhisperEncoder, shards: Iterable[int], progress: Progress | None = None
) -> Stats:
    """Make the given shards, each whole or not at all.

    Args:
        job: the split.
        encoder: where it computes decides the device.
        shards: indices into the job's plan; those of other processes are not ours.
        progress: called after every batch.

    Raises:
        OmniError: more failures than the job allows; a full disk. Committed shards stay.
    """
    keep_memory_flat()
    give_back_memory()  # what making the manifest took
    stats = Stats()
    shards = list(shards)
    decoders = ThreadPoolExecutor(job.decode_workers, thread_name_prefix="decode")
    writer_thread = ThreadPoolExecutor(1, thread_name_prefix="write")
    rows = (row for shard in shards for row in job.rows(shard))
    decoded = decode_ahead(rows, decoders, job.decode_workers, job.batch_size)
    try:
        for shard in shards:
            with ShardWriter(job.spec, shard) as writer:
                _Shard(job, encoder, writer, writer_thread, stats, progress).make(shard, decoded)
            give_back_memory()
    except OSError as error:
        mend = "what is committed stays: make room, run the same command again"
        raise OmniError(
            f"shard can't be written ({error.strerror})", str(job.spec.folder), mend
        ) from error
    finally:
        decoders.shutdown(cancel_futures=True)
        writer_thread.shutdown(cancel_futures=True)
    return stats


def environment(job: Job, encoder: WhisperEncoder, stamp: str) -> Environment:
    """What the bytes may depend on besides the fingerprint."""
    import transformers

    device = encoder.device
    return {
        "encoder": encoder.name,
        "source": encoder.source,
        "device_type": device.type,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.machine(),
        "compute": compute_name(encoder),
        "batch_size": job.batch_size,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "stamp": stamp,
    }


def compute_name(encoder: WhisperEncoder) -> str:
    """Name of the type that the encoder computes in: `float32`."""
    return str(encoder.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class _Failure:
    id: str
    problem: Problem
    reason: str


@dataclass
class _Written:
    """What the writer's thread did with a batch."""

    utterances: int = 0
    samples: int = 0
    failures: list[_Failure] = field(default_factory=list)


class _Shard:
    """A shard in the making. All but `_write` runs in the thread that encodes."""

    def __init__(
        self,
        job: Job,
        encoder: WhisperEncoder,
        writer: ShardWriter,
        writer_thread: ThreadPoolExecutor,
        stats: Stats,
        progress: Progress | None,
    ) -> None:
        self._job, self._encoder, self._writer = job, encoder, writer
        self._encode = BatchEncoder(encoder, job.layers, job.window, job.batch_size)
        self._writer_thread, self._stats, self._progress = writer_thread, stats, progress
        self._seconds = dict.fromkeys(stats.seconds, 0.0)
        self._batches: Batches[OwnedWindow] = Batches(job.batch_size)
        self._in_flight: deque[Future[_Written]] = deque()
        self._pending: deque[Pending] = deque()  # appended here, consumed by the writer, in order

    def make(self, shard: int, decoded: Iterator[Decoded]) -> None:
        """Take the shard's utterances from `decoded`, write and commit them."""
        content, stamps = list[tuple[Utterance, str]](), list[tuple[Utterance, str]]()
        try:
            for _ in self._job.plan[shard]:
                item = next(decoded)
                content.append((item.utterance, item.file.sha256))
                stamps.append((item.utterance, item.file.stamp))
                self._take(item)
                del item  # its samples must not wait for those of the next
            for left in self._batches.rest():
                self._flush(left)
            while self._in_flight:
                self._settle()
        finally:  # the writer must be idle before its file is closed
            for future in self._in_flight:
                future.cancel()
            wait(self._in_flight)
        where = environment(self._job, self._encoder, inputs_hash(stamps))
        sidecar = self._writer.commit(inputs_hash(content), where, self._seconds)
        self._stats.shards += 1
        self._stats.bytes += sidecar["bytes"]
        for stage, value in self._seconds.items():
            self._stats.seconds[stage] += value
        if self._progress:
            self._progress(self._stats)

    def _take(self, item: Decoded) -> None:
        self._seconds["decode"] += item.seconds
        if item.problem:
            failure = _Failure(item.utterance.id, item.problem, item.reason)
            self._writer.fail(failure.id, failure.reason, failure.problem)
            self._count([failure])
            return
        chunks = split_windows(item.wave)
        owner = Pending(_meta(self._job, item), len(chunks))
        self._pending.append(owner)
        for place, chunk in enumerate(chunks):
            # A window that waits for others of its length must not hold on to an hour of samples.
            wave = chunk.copy() if len(chunks) > 1 else chunk
            length = self._job.window.length(frame_count(len(wave)))
            if full := self._batches.add(length, OwnedWindow(wave, owner, place)):
                self._flush(full)

    def _flush(self, windows: list[OwnedWindow]) -> None:
        encoded = self._encode(windows, self._seconds)
        self._in_flight.append(self._writer_thread.submit(self._write, encoded))
        while len(self._in_flight) > _BATCHES_IN_FLIGHT:
            self._settle()
        if self._progress:
            before = self._stats.seconds
            seconds = {stage: before[stage] + value for stage, value in self._seconds.items()}
            self._progress(replace(self._stats, seconds=seconds))

    def _settle(self) -> None:
        """Count what the oldest batch in flight became; hands on what the writer raised."""
        written = self._in_flight[0].result()
        self._in_flight.popleft()
        self._stats.utterances += written.utterances
        self._stats.audio_seconds += written.samples / SAMPLE_RATE
        self._count(written.failures)

    def _count(self, failures: list[_Failure]) -> None:
        for failure in failures:
            self._stats.failures += 1
            if self._stats.failures > self._job.max_failures:
                raise OmniError(
                    f"more than {self._job.max_failures} utterances failed, the last: {failure.reason}",
                    failure.id,
                    "mend the corpus, or raise --max-failures",
                )

    def _write(self, encoded: Encoded) -> _Written:
        """Runs in the writer's thread: hand finished utterances to the shard."""
        for window, reason in encoded.failed:
            window.owner.give_up(reason)
        batch = encoded.batch
        if batch is not None:
            batch.ready(self._seconds)
        start, written = time.perf_counter(), _Written()
        if batch is not None:
            pieces = batch.features.split(batch.counts, dim=-2)
            for piece, window in zip(pieces, batch.windows, strict=True):
                window.owner.take(window.place, self._as_stored(piece.numpy()))
        while self._pending and self._pending[0].windows_left == 0:
            self._finish(self._pending.popleft(), written)
        self._seconds["write"] += time.perf_counter() - start
        return written

    def _finish(self, done: Pending, written: _Written) -> None:
        """An utterance all of whose windows came back: into the shard, or among its failures."""
        utterance_id = done.meta["id"]
        if not done.problem:
            pieces = [done.pieces.pop(place) for place in sorted(done.pieces)]
            features = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-2)
            del pieces  # hours of them, once more
            try:
                self._writer.add(done.meta, features)
            except UnfitError as error:
                done.problem, done.reason = error.problem, error.what
        if done.problem:
            self._writer.fail(utterance_id, done.reason, done.problem)
            written.failures.append(_Failure(utterance_id, done.problem, done.reason))
        else:
            written.utterances += 1
            written.samples += done.meta["n_samples"]

    def _as_stored(self, piece: np.ndarray) -> np.ndarray:
        """Half the memory while an hour's other windows are awaited; int8 needs all of them first."""
        if self._job.spec.dtype != "float16":
            return piece
        with np.errstate(over="ignore"):  # what is not finite is found when it is written
            return piece.astype(np.float16, copy=False)


def _meta(job: Job, item: Decoded) -> SampleMeta:
    u, n = item.utterance, len(item.wave)
    return {
        "id": u.id,
        "split": job.manifest.split,
        "speaker": u.speaker,
        "chapter": u.chapter,
        "sex": u.sex,
        "text": u.text,
        "text_norm": u.text_norm,
        "n_samples": n,
        "n_frames": frame_count(n),
        "n_chunks": chunk_count(n),
        "sha256": item.sha256,
    }
