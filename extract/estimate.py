"""What a run would do: shards, bytes, and the time by a short trial. Must not write anything."""

import shutil
import time

import numpy as np

from extract.engines import Rank
from extract.lengths import expected_seconds
from extract.plan import shards_of_rank
from extract.resume import missing_shards
from extract.run import Settings, bytes_needed, make_job
from omni.audio import SAMPLE_RATE
from omni.errors import enough_memory, halved
from omni.formats.manifest import Manifest
from omni.whisper.encoder import WhisperEncoder, chunk_count
from omni.whisper.mel import WINDOW_SAMPLES

TRIAL_BATCHES = 2


def estimate(
    manifest: Manifest, encoder: WhisperEncoder, settings: Settings, rank: Rank | None = None
) -> str:
    """A paragraph: what is there, what is missing, how large it gets, how long it takes.

    Raises:
        OmniError: shards made otherwise are there.
    """
    job = make_job(manifest, encoder, settings)
    rank = rank or Rank()
    mine = shards_of_rank(len(job.plan), rank.rank, rank.world_size)
    missing = list(range(len(job.plan))) if settings.overwrite else missing_shards(job, mine).shards
    rows = [row for shard in missing for row in job.rows(shard)]
    lengths = [expected_seconds(*row) for row in rows]
    windows = sum(chunk_count(round(length * SAMPLE_RATE)) for length in lengths)
    time_ = "the cluster's speed is not tried"
    if settings.placement is None:
        seconds = windows * seconds_per_window(encoder, settings) if rows else 0.0
        time_ = f"about {seconds:.0f} s of encoding"
    parent = settings.out
    while not parent.exists():
        parent = parent.parent
    problems = sum(bool(u.problem) for u, _ in rows)
    return (
        f"{manifest.split}: {len(job.plan)} shards, {len(missing)} to make: {len(rows)} utterances, "
        f"{sum(lengths) / 3600:.2f} h, {problems} of them known to fail; "
        f"{bytes_needed(job, lengths, encoder.d_model) / 1e9:.3f} GB of "
        f"{shutil.disk_usage(parent).free / 1e9:.1f} GB free; {time_} "
        f"({windows} windows)"
    )


def seconds_per_window(encoder: WhisperEncoder, settings: Settings) -> float:
    """Wall time of a window at the run's batch size, on noise of LibriSpeech's mean length."""
    wave = np.random.default_rng(0).standard_normal(min(12 * SAMPLE_RATE, WINDOW_SAMPLES)) * 0.1
    batch = [wave.astype(np.float32)] * settings.batch_size
    with enough_memory("the trial", halved(settings.batch_size, "--batch-size")):
        encoder.encode_windows(batch, settings.layers, settings.window).features.cpu()  # warms up
        start = time.perf_counter()
        for _ in range(TRIAL_BATCHES):
            encoder.encode_windows(batch, settings.layers, settings.window).features.cpu()
    return (time.perf_counter() - start) / (TRIAL_BATCHES * settings.batch_size)
