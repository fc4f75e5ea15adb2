"""Who makes which shard: this process alone, or every world_size-th of them.

No coordinator: the plan is a pure function, a shard belongs to rank `shard % world_size`, and who
finds all of them committed writes the index. Must not know how a shard is made.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from extract.claims import Kind, claim
from extract.pipeline import Job, Progress, Stats, compute_name, extract_shards
from extract.placement import Placement
from extract.resume import Missing
from omni.device import launcher_number
from omni.errors import OmniError, enough_memory, halved
from omni.formats.shard_writer import open_for_writing, write_index
from omni.whisper.encoder import WhisperEncoder


@dataclass(frozen=True)
class Rank:
    """This process among its peers."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # which GPU of this node


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> Rank:
    """torchrun's variables, else SLURM's, else alone.

    Raises:
        OmniError: a variable that is no number; a rank outside of its world.
    """
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ):
        if rank in environment and world in environment:
            found = Rank(
                launcher_number(environment, rank),
                launcher_number(environment, world, least=1),
                launcher_number(environment, local) if local in environment else 0,
            )
            if found.rank >= found.world_size:
                what = f"there is no rank {found.rank} of {found.world_size}"
                raise OmniError(what, f"{rank} and {world} of the environment", "unset them")
            return found
    return Rank()


def run(
    job: Job,
    encoder: WhisperEncoder,
    missing: Missing,
    progress: Progress | None = None,
    placement: Placement | None = None,
    allow_mixed: bool = False,
) -> Stats:
    """Make this rank's missing shards, and the index if that was all.

    Args:
        job: the split.
        encoder: loaded already; on this process's CPU where actors do the work.
        missing: this rank's, from `extract.resume`.
        progress: called now and then.
        placement: of the actors of a Ray cluster; None: this process does the work.
        allow_mixed: go on where another kind of device or another precision began.

    Raises:
        OmniError: another kind began; and as `extract_shards`.
    """
    stats = Stats()
    if missing.shards:
        here = Kind(encoder.device.type, compute_name(encoder))
        kind = placement.kind if placement else here
        with claim(job.spec, kind, missing.shards, allow_mixed):
            open_for_writing(job.spec, missing.stale)
            if placement:
                from extract.ray_engine import run_ray

                stats = run_ray(job, encoder, missing.shards, placement, progress)
            else:
                with memory_for(job):
                    stats = extract_shards(job, encoder, missing.shards, progress)
    write_index(job.spec, len(job.plan))
    return stats


def memory_for(job: Job) -> contextlib.AbstractContextManager[None]:
    """What makes shards inside may run out of memory, a card's or the host's.

    Raises:
        OmniError: it did; names the option that halves what is held.
    """
    mend = halved(job.batch_size, "--batch-size", "give --workers 1, or a smaller --encoder")
    return enough_memory(f"batches of {job.batch_size} windows", mend)
