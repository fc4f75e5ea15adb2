"""Who makes which shard: this process alone, or every world_size-th of them.

No coordinator: the plan is a pure function, a shard belongs to rank `shard % world_size`, and who
finds all of them committed writes the index. Must not know how a shard is made.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from extract.pipeline import Job, Progress, Stats, extract_shards
from extract.plan import shards_of_rank
from omni.shard_writer import is_committed, open_for_writing, write_index
from omni.whisper import WhisperEncoder


@dataclass(frozen=True)
class Rank:
    """This process among its peers."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # which GPU of this node


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> Rank:
    """torchrun's variables, else SLURM's, else alone."""
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ):
        if rank in environment and world in environment:
            return Rank(
                int(environment[rank]), int(environment[world]), int(environment.get(local, 0))
            )
    return Rank()


def missing_shards(job: Job, rank: Rank) -> list[int]:
    """This rank's shards that are not committed yet.

    Raises:
        OmniError: those there were made with another configuration.
    """
    mine = shards_of_rank(len(job.plan), rank.rank, rank.world_size)
    return [shard for shard in mine if not is_committed(job.spec, shard, job.ids(shard))]


def run_local(
    job: Job, encoder: WhisperEncoder, rank: Rank, progress: Progress | None = None
) -> Stats:
    """Make this rank's missing shards in this process, and the index if that was all."""
    missing = missing_shards(job, rank)
    if missing:
        open_for_writing(job.spec, len(job.plan))
    stats = extract_shards(job, encoder, missing, progress)
    write_index(job.spec, len(job.plan))
    return stats
