"""Utterances to shards: decode in threads, log-mel and Whisper on the device, write behind.

    threads            this thread                      one thread
    decode, sha256 ──► batches of windows, encode ──►  copy out, split, write, hash, commit

Windows of one length share a batch; utterances are written in the plan's order all the same. Batches
form inside a shard, so a shard's bytes depend on nothing before it: killed and resumed is
the same as never killed. Must not know how shards are shared among processes (`extract.engines`).

Threads and not processes decode: libsndfile and hashlib let go of the interpreter's lock, and another
process's samples would have to be copied here. `bench/decode.py`, one and two workers: 0.87 and 0.57 s
in threads, 1.36 and 0.83 s in processes, 1.16 and 0.63 s in processes with shared memory.
"""

import hashlib
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract.allocator import give_back_memory, keep_memory_flat
from extract.batches import Batches
from extract.pieces import load_piece
from omni.audio import SAMPLE_RATE
from omni.encoder import rate_config
from omni.errors import OmniError
from omni.formats.manifest import Manifest, Utterance
from omni.formats.shard_writer import ShardWriter, SplitSpec
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

    def ids(self, shard: int) -> list[str]:
        """Planned utterance ids of a shard."""
        return [self.manifest.utterances[i].id for i in self.plan[shard]]


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
    encoder: WhisperEncoder, layers: Layers, dtype: str, window: Window = EXACT
) -> dict[str, Any]:
    """All that decides a stored value: the fingerprint is taken over it."""
    return {
        "encoder": encoder.hash,
        "layers": layers if layers == "last" else list(layers),
        "dtype": dtype,
        "window": window.config(),
        "mel": MEL_VERSION,
        "trim": TRIM_VERSION,
    } | rate_config(encoder)


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
    decoded = _decode_ahead(job, shards, decoders)
    try:
        for shard in shards:
            _extract_shard(job, encoder, shard, decoded, writer_thread, stats, progress)
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


@dataclass(frozen=True)
class _Decoded:
    """A decoded utterance, or why there is none."""

    utterance: Utterance
    wave: np.ndarray  # float32 (n,)
    sha256: str
    failure: str
    seconds: float


@dataclass
class _Pending:
    """An utterance whose windows are on their way through the encoder."""

    meta: dict[str, Any]
    windows_left: int
    pieces: dict[int, np.ndarray] = field(default_factory=dict)  # by the window's place in it


@dataclass(frozen=True)
class _Window:
    """At most 30 s of an utterance."""

    wave: np.ndarray
    owner: _Pending
    place: int


def _extract_shard(
    job: Job,
    encoder: WhisperEncoder,
    shard: int,
    decoded: Iterator[_Decoded],
    writer_thread: ThreadPoolExecutor,
    stats: Stats,
    progress: Progress | None,
) -> None:
    seconds = dict.fromkeys(stats.seconds, 0.0)
    in_flight: deque[Future[None]] = deque()
    batches: Batches[_Window] = Batches(job.batch_size)
    pending: deque[_Pending] = deque()  # appended here, consumed by the writer, both in plan order
    with ShardWriter(job.spec, shard, job.ids(shard)) as writer:

        def flush(windows: list[_Window]) -> None:
            batch = _encode(encoder, windows, job, seconds)
            in_flight.append(writer_thread.submit(_write, writer, batch, pending, seconds))
            while len(in_flight) > _BATCHES_IN_FLIGHT:
                in_flight.popleft().result()  # hands on what the writer raised
            if progress:
                so_far = {stage: stats.seconds[stage] + value for stage, value in seconds.items()}
                progress(replace(stats, seconds=so_far))

        try:
            for _ in job.plan[shard]:
                item = next(decoded)
                seconds["decode"] += item.seconds
                if item.failure:
                    writer.fail(item.utterance.id, item.failure)
                    _count_failure(job, item, stats)
                    continue
                chunks = split_windows(item.wave)
                owner = _Pending(_meta(job, item), len(chunks))
                pending.append(owner)
                for i, chunk in enumerate(chunks):
                    length = job.window.length(frame_count(len(chunk)))
                    if full := batches.add(length, _Window(chunk, owner, i)):
                        flush(full)
                stats.utterances += 1
                stats.audio_seconds += len(item.wave) / SAMPLE_RATE
            for left in batches.rest():
                flush(left)
        finally:  # the writer must be idle before its file is closed
            results = [future.exception() for future in in_flight]
        for error in results:
            if error is not None:
                raise error
        sidecar = writer.commit(_environment(job, encoder), seconds)
    stats.shards += 1
    stats.bytes += sidecar["bytes"]
    for stage, value in seconds.items():
        stats.seconds[stage] += value
    if progress:
        progress(stats)


def _decode_ahead(job: Job, shards: list[int], pool: ThreadPoolExecutor) -> Iterator[_Decoded]:
    """Decoded utterances of the shards in plan order, a bounded number of them in advance."""
    ahead = job.batch_size + 4 * job.decode_workers
    order = (job.manifest.utterances[i] for shard in shards for i in job.plan[shard])
    waiting: deque[Future[_Decoded]] = deque()
    for utterance in order:
        waiting.append(pool.submit(_decode, utterance, job.manifest.audio_path(utterance)))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(utterance: Utterance, path: Path) -> _Decoded:
    start = time.perf_counter()
    wave, digest, failure = np.empty(0, np.float32), "", utterance.note
    try:
        if utterance.is_complete:
            wave = load_piece(path, utterance.start, utterance.length)
            digest = hashlib.sha256(wave.astype("<f4", copy=False).data).hexdigest()
            failure = ""
    except OmniError as error:
        failure = f"{error.what}: {error.mend}" if error.mend else error.what
    return _Decoded(utterance, wave, digest, failure, time.perf_counter() - start)


def _count_failure(job: Job, item: _Decoded, stats: Stats) -> None:
    stats.failures += 1
    if stats.failures > job.max_failures:
        raise OmniError(
            f"more than {job.max_failures} utterances failed, the last: {item.failure}",
            item.utterance.id,
            "look at failures.jsonl and the corpus, or raise --max-failures",
        )


def _meta(job: Job, item: _Decoded) -> dict[str, Any]:
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


@dataclass(frozen=True)
class _Batch:
    """Encoded windows: features ([L,] sum of counts, d) on the host once `ready` has happened."""

    features: torch.Tensor
    counts: list[int]
    owners: list[tuple[_Pending, int]]  # whose each window is, and its place there
    marks: list[torch.cuda.Event]  # on a GPU: before mel, after mel, after encoding, after the copy


def _encode(
    encoder: WhisperEncoder, windows: list[_Window], job: Job, seconds: dict[str, float]
) -> _Batch:
    """Launch a batch; on a GPU nothing here waits for it."""
    waves = [window.wave for window in windows]
    owners = [(window.owner, window.place) for window in windows]
    if encoder.device.type != "cuda":
        start = time.perf_counter()
        mel, counts = encoder.mel(waves, window=job.window)
        middle = time.perf_counter()
        features = encoder.encode_mel(mel, counts, job.layers, job.window)
        seconds["mel"] += middle - start
        seconds["encode"] += time.perf_counter() - middle
        return _Batch(features, counts, owners, [])
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
    marks[0].record()
    # One shape for all batches of a length.
    mel, counts = encoder.mel(waves, pad_to=job.batch_size, window=job.window)
    marks[1].record()
    features = encoder.encode_mel(mel, counts, job.layers, job.window)
    marks[2].record()
    host = torch.empty(features.shape, dtype=torch.float16, pin_memory=True)
    host.copy_(features, non_blocking=True)
    marks[3].record()
    return _Batch(host, counts, owners, marks)


def _write(
    writer: ShardWriter, batch: _Batch, pending: deque[_Pending], seconds: dict[str, float]
) -> None:
    """Runs in the writer's thread: hand finished utterances to the shard."""
    if batch.marks:
        batch.marks[-1].synchronize()
        seconds["mel"] += batch.marks[0].elapsed_time(batch.marks[1]) / 1000
        seconds["encode"] += batch.marks[1].elapsed_time(batch.marks[2]) / 1000
    start = time.perf_counter()
    pieces = batch.features.split(batch.counts, dim=-2)
    for piece, (owner, place) in zip(pieces, batch.owners, strict=True):
        owner.pieces[place] = piece.numpy()
        owner.windows_left -= 1
    while pending and pending[0].windows_left == 0:
        done = pending.popleft()
        in_order = [done.pieces[place] for place in sorted(done.pieces)]
        writer.add(done.meta, np.concatenate(in_order, axis=-2))
    seconds["write"] += time.perf_counter() - start


def _environment(job: Job, encoder: WhisperEncoder) -> dict[str, Any]:
    """What the bytes may depend on besides the fingerprint."""
    import transformers

    device = encoder.device
    return {
        "encoder": encoder.name,
        "source": encoder.source,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.machine(),
        "compute": str(encoder.dtype).removeprefix("torch."),
        "batch_size": job.batch_size,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
