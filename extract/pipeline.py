"""Utterances to shards: decode in threads, log-mel and Whisper on the device, write behind.

    threads            this thread                      a few threads, and one for each shard
    decode, sha256 ──► batches of windows, encode ──►  copy out, split, write, hash, commit

Windows of one length share a batch; utterances are written in the plan's order all the same. Batches
form inside a shard, so a shard's bytes depend on nothing before it: killed and resumed is
the same as never killed. The next shard begins while the last ones wait for the disk. What is wrong with
one utterance, at whatever stage, is recorded and the rest goes on. Must not know how shards are shared
among processes (`extract.engines`).
"""

import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from extract.ahead import Decoded, decode_ahead
from extract.allocator import give_back_memory, keep_memory_flat
from extract.batches import Batches
from extract.encode import BATCHES_IN_FLIGHT, BatchEncoder, OwnedWindow
from extract.making import HANDS, Failure, Making, Written
from omni.audio import SAMPLE_RATE
from omni.encoder import rate_config
from omni.errors import OmniError
from omni.formats.manifest import Manifest, Utterance
from omni.formats.records import Environment, FeatureConfig, SampleMeta, StoredDtype
from omni.formats.shard_writer import SplitSpec
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

_AWAITING_COMMIT = 2  # shards written and not yet on the disk: bounds what a kill costs


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
    hands = ThreadPoolExecutor(min(HANDS, job.decode_workers), thread_name_prefix="hand")
    rows = (row for shard in shards for row in job.rows(shard))
    decoded = decode_ahead(rows, decoders, job.decode_workers, job.batch_size)
    run = _Run(job, encoder, hands, stats, progress)
    try:
        for shard in shards:
            run.make(shard, decoded)
        run.finish()
    except OSError as error:
        mend = "what is committed stays: make room, run the same command again"
        raise OmniError(
            f"shard can't be written ({error.strerror})", str(job.spec.folder), mend
        ) from error
    finally:
        decoders.shutdown(cancel_futures=True)
        run.close()
        hands.shutdown(cancel_futures=True)
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


class _Run:
    """Shards one after the other, the last ones still being written. All of it runs in one thread."""

    def __init__(
        self,
        job: Job,
        encoder: WhisperEncoder,
        hands: ThreadPoolExecutor,
        stats: Stats,
        progress: Progress | None,
    ) -> None:
        self._job, self._hands, self._stats, self._progress = job, hands, stats, progress
        self._where = partial(environment, job, encoder)
        self._encode = BatchEncoder(
            encoder, job.layers, job.window, job.batch_size, job.spec.dtype, hands
        )
        self._in_flight: deque[tuple[Making, Future[Written]]] = deque()
        self._open: deque[Making] = deque()  # not committed as far as we know, oldest first

    def make(self, shard: int, decoded: Iterator[Decoded]) -> None:
        """Take the shard's utterances from `decoded`, and hand over all that they become."""
        making = Making(self._job.spec, shard, self._stats.seconds, self._hands)
        self._open.append(making)
        batches: Batches[OwnedWindow] = Batches(self._job.batch_size)
        for _ in self._job.plan[shard]:
            self._take(next(decoded), making, batches)
        for left in batches.rest():
            self._flush(making, left)
        making.filled = True
        self._advance(BATCHES_IN_FLIGHT, _AWAITING_COMMIT)

    def finish(self) -> None:
        """Wait until every shard is committed."""
        self._advance(0, 0)

    def close(self) -> None:
        """Leave no half-written file; a commit that has begun comes to its end."""
        for _, future in self._in_flight:
            future.cancel()
        for making in self._open:
            making.close()

    def _take(self, item: Decoded, making: Making, batches: Batches[OwnedWindow]) -> None:
        making.note(item)
        if item.problem:
            failure = Failure(item.utterance.id, item.problem, item.reason)
            making.fail(failure)
            self._count([failure])
            return
        chunks = split_windows(item.wave)
        owner = making.expect(_meta(self._job, item), len(chunks))
        for place, chunk in enumerate(chunks):
            # A window that waits for others of its length must not hold on to an hour of samples.
            wave = chunk.copy() if len(chunks) > 1 else chunk
            length = self._job.window.length(frame_count(len(wave)))
            if full := batches.add(length, OwnedWindow(wave, owner, place)):
                self._flush(making, full)

    def _flush(self, making: Making, windows: list[OwnedWindow]) -> None:
        encoded = self._encode(windows, making.seconds)
        self._in_flight.append((making, making.hand_over(encoded)))
        self._advance(BATCHES_IN_FLIGHT, _AWAITING_COMMIT)
        if self._progress:
            seconds = dict(self._stats.seconds)
            for shard in self._open:
                for stage, value in shard.seconds.items():
                    seconds[stage] += value
            self._progress(replace(self._stats, seconds=seconds))

    def _advance(self, most_batches: int, most_shards: int) -> None:
        """Take in what the writers have done; wait where more than so much is left to them."""
        while self._in_flight and (
            len(self._in_flight) > most_batches or self._in_flight[0][1].done()
        ):
            self._settle()
        while self._open and self._open[0].filled:
            waiting = sum(making.filled for making in self._open)
            self._start_commits()
            if waiting <= most_shards and not self._open[0].is_committed:
                break
            while self._open[0].unsettled:
                self._settle()
            self._start_commits()
            self._take_in(self._open[0])
            self._open.popleft().close()
            give_back_memory()

    def _start_commits(self) -> None:
        """Of shards whose utterances are all counted: too many failures must not be committed."""
        for making in self._open:
            if making.filled and not making.unsettled:
                making.start_commit(self._where)

    def _take_in(self, making: Making) -> None:
        sidecar = making.sidecar()
        self._stats.shards += 1
        self._stats.bytes += sidecar["bytes"]
        for stage, value in making.seconds.items():
            self._stats.seconds[stage] += value
        if self._progress:
            self._progress(self._stats)

    def _settle(self) -> None:
        """Count what the oldest batch in flight became; hands on what its writer raised."""
        making, future = self._in_flight[0]
        written = future.result()
        self._in_flight.popleft()
        making.unsettled -= 1
        self._stats.utterances += written.utterances
        self._stats.audio_seconds += written.samples / SAMPLE_RATE
        self._count(written.failures)

    def _count(self, failures: list[Failure]) -> None:
        for failure in failures:
            self._stats.failures += 1
            if self._stats.failures > self._job.max_failures:
                raise OmniError(
                    f"more than {self._job.max_failures} utterances failed, the last: {failure.reason}",
                    failure.id,
                    "mend the corpus, or raise --max-failures",
                )


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
