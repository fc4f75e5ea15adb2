"""Who makes which shard: this process alone, or every world_size-th of them.

No coordinator: the plan is a pure function, a shard belongs to rank `shard % world_size`, and who
finds all of them committed writes the index. Must not know how a shard is made.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from extract.pipeline import Job, Progress, Stats, extract_shards
from extract.plan import shards_of_rank
from omni.formats.shard_writer import is_committed, open_for_writing, write_index
from omni.whisper.encoder import WhisperEncoder


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


def run(
    job: Job,
    encoder: WhisperEncoder,
    rank: Rank,
    missing: list[int],
    progress: Progress | None = None,
    ray_workers: int = 0,
) -> Stats:
    """Make this rank's missing shards, and the index if that was all.

    Args:
        job: the split.
        encoder: loaded already.
        rank: who we are.
        missing: from `missing_shards`.
        progress: called now and then.
        ray_workers: actors of a Ray cluster; 0: this process does the work.
    """
    if missing:
        open_for_writing(job.spec, len(job.plan))
    if ray_workers and missing:
        from extract.ray_engine import run_ray

        threads = torch.get_num_threads()  # the bytes may depend on it: the same everywhere
        stats = run_ray(job, encoder, missing, ray_workers, progress, threads)
    else:
        stats = extract_shards(job, encoder, missing, progress)
    write_index(job.spec, len(job.plan))
    return stats
