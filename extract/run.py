"""A split from manifest to finished shards: what `omni-extract` does once options are parsed.

Must not know about the command line or how a corpus is laid out.
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from extract.engines import Rank, run
from extract.lengths import expected_seconds
from extract.pipeline import Job, Stats, feature_config
from extract.placement import Placement
from extract.plan import make_plan, shards_of_rank
from extract.progress import ProgressLine, stage_shares
from extract.resume import missing_shards
from omni.audio import SAMPLE_RATE
from omni.errors import OmniError
from omni.formats.manifest import Manifest
from omni.formats.records import shard_name
from omni.formats.shard_verify import verify_shard
from omni.formats.shard_writer import (
    SplitSpec,
    StoredDtype,
    clear_split,
    refuse_beyond,
    write_index,
)
from omni.whisper.encoder import Layers, WhisperEncoder, frame_count
from omni.whisper.window import EXACT, Window

ROW_OVERHEAD_BYTES = 4096  # tar headers, JSON and padding of an utterance, rounded up


@dataclass(frozen=True)
class Settings:
    """The choices of a run that are not the corpus."""

    out: Path  # the split's folder is made in it
    layers: Layers
    shard_size: int
    limit: int | None
    batch_size: int  # windows
    decode_workers: int
    max_failures: int
    overwrite: bool
    repair: bool = False  # look at every byte of what is there, make faulty shards again
    dtype: StoredDtype = "float16"
    placement: Placement | None = None  # of the actors of a Ray cluster; None: this process
    window: Window = EXACT
    allow_mixed: bool = False  # go on on another kind of device or in another precision


@dataclass(frozen=True)
class Outcome:
    """What became of a split, for the summary."""

    split: str
    folder: Path
    shards: int  # in the plan
    kept: int  # of them found committed
    stats: Stats  # of this run
    utterances: int  # in all shards, if the split is complete
    failures: int
    complete: bool
    seconds: float


def extract_split(
    manifest: Manifest, encoder: WhisperEncoder, settings: Settings, rank: Rank | None = None
) -> Outcome:
    """Plan, skip what is committed, make the rest.

    Raises:
        OmniError: shards made otherwise, or more of them, are there and `overwrite` is not set; the
            disk is too small; too many failures.
    """
    start = time.monotonic()
    rank = rank or Rank()
    job = make_job(manifest, encoder, settings)
    if settings.overwrite:
        if rank.world_size > 1:
            raise OmniError(
                "--overwrite with several ranks: one would clear what others have made",
                mend="remove the folder first",
            )
        clear_split(job.spec.folder)
    refuse_beyond(job.spec, len(job.plan))
    if settings.repair:
        drop_faulty(job, rank)
    mine = shards_of_rank(len(job.plan), rank.rank, rank.world_size)
    missing = missing_shards(job, mine, look_closely=settings.repair)
    if missing.stale:
        print(missing.told(manifest.split))
    seconds = [expected_seconds(*row) for shard in missing.shards for row in job.rows(shard)]
    require_disk(job, seconds, encoder.d_model)
    with ProgressLine(manifest.split, len(seconds), sum(seconds)) as progress:
        stats = run(job, encoder, missing, progress, settings.placement, settings.allow_mixed)
    index = write_index(job.spec, len(job.plan))
    return Outcome(
        split=manifest.split,
        folder=job.spec.folder,
        shards=len(job.plan),
        kept=len(mine) - len(missing.shards),
        stats=stats,
        utterances=index["n"] if index else stats.utterances,
        failures=index["n_failures"] if index else stats.failures,
        complete=index is not None,
        seconds=time.monotonic() - start,
    )


def make_job(manifest: Manifest, encoder: WhisperEncoder, settings: Settings) -> Job:
    """The plan of a split and everything its shards have in common."""
    ids = [u.id for u in manifest.utterances]
    spec = SplitSpec(
        folder=settings.out / manifest.split,
        split=manifest.split,
        role=manifest.role,
        config=feature_config(encoder, settings.layers, settings.dtype, settings.window),
        shard_size=settings.shard_size,
    )
    return Job(
        spec=spec,
        manifest=manifest,
        plan=make_plan(ids, settings.shard_size, limit=settings.limit),
        layers=settings.layers,
        batch_size=settings.batch_size,
        decode_workers=settings.decode_workers,
        max_failures=settings.max_failures,
        window=settings.window,
    )


def drop_faulty(job: Job, rank: Rank) -> None:
    """Take the commit mark off this rank's shards that are not as they were written.

    Raises:
        OmniError: a folder stands where a shard should.
    """
    for shard in range(rank.rank, len(job.plan), rank.world_size):
        tar = job.spec.folder / f"{shard_name(job.spec.split, shard)}.tar"
        sidecar = tar.with_suffix(".json")
        if not os.path.lexists(tar) and not os.path.lexists(sidecar):
            continue
        faults = list(verify_shard(tar))
        for fault in faults:
            print(f"repair: {fault}")
        for path in (tar, sidecar):
            if path.is_dir():
                raise OmniError("a folder stands where a shard should", str(path), "remove it")
        if faults:
            sidecar.unlink(missing_ok=True)


def bytes_needed(job: Job, seconds: Sequence[float], d_model: int) -> int:
    """Size of shards of utterances of these lengths before they are made; a little too large."""
    n_layers = 1 if job.layers == "last" else len(job.layers)
    per_frame = n_layers * d_model * (1 if job.spec.dtype == "int8" else 2)
    n_frames = sum(frame_count(round(length * SAMPLE_RATE)) for length in seconds)
    return n_frames * per_frame + len(seconds) * ROW_OVERHEAD_BYTES


def require_disk(job: Job, seconds: Sequence[float], d_model: int) -> None:
    """Refuse to start what can't end.

    Raises:
        OmniError: less room than the shards need.
    """
    folder = job.spec.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OmniError(f"the folder can't be made ({error.strerror})", str(folder)) from error
    needed, free = bytes_needed(job, seconds, d_model), shutil.disk_usage(folder).free
    if needed > free:
        raise OmniError(
            f"the shards need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free",
            str(folder),
            "choose another --out, or take part of the split with --limit",
        )


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table of the splits, and where the time went."""
    head = f"{'split':<20} {'shards':>9} {'utterances':>10} {'hours':>7} {'failed':>6} {'MB':>8} {'x real':>7} {'s':>7}"
    lines = [head]
    for o in outcomes:
        speed = o.stats.audio_seconds / o.seconds if o.stats.utterances else 0.0
        made = f"{o.stats.shards}+{o.kept}" if o.kept else str(o.stats.shards)
        lines.append(
            f"{o.split:<20} {made:>9} {o.utterances:>10} {o.stats.audio_seconds / 3600:>7.2f} "
            f"{o.failures:>6} {o.stats.bytes / 1e6:>8.1f} {speed:>7.1f} {o.seconds:>7.1f}"
        )
        if o.stats.utterances:
            lines.append(f"  {stage_shares(o.stats)}")
        if o.failures:
            lines.append(f"  failures are listed in {o.folder / 'failures.jsonl'}")
        if not o.complete:
            lines.append("  other ranks still have shards to make")
    if any(o.kept for o in outcomes):
        lines.append("shards: made in this run + found there")
    return "\n".join(lines)


class SplitSummary(TypedDict):
    """Of one split, as `--json` writes it. `…_made` and seconds: of this run alone."""

    folder: str
    complete: bool
    shards: int
    shards_kept: int
    shards_made: int
    utterances: int
    failures: int
    audio_hours_made: float
    bytes_made: int
    seconds: float
    stage_seconds: dict[str, float]


def summary_json(outcomes: Sequence[Outcome]) -> dict[str, SplitSummary]:
    """The summary for programs, by split."""
    return {
        o.split: {
            "folder": str(o.folder),
            "complete": o.complete,
            "shards": o.shards,
            "shards_kept": o.kept,
            "shards_made": o.stats.shards,
            "utterances": o.utterances,
            "failures": o.failures,
            "audio_hours_made": o.stats.audio_seconds / 3600,
            "bytes_made": o.stats.bytes,
            "seconds": o.seconds,
            "stage_seconds": o.stats.seconds,
        }
        for o in outcomes
    }
