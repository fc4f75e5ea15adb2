"""Who makes which shard: this process alone, or every world_size-th of them.

No coordinator: the plan is a pure function, a shard belongs to rank `shard % world_size`, and who
finds all of them committed writes the index. Must not know how a shard is made.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from extract.claims import Kind, claim
from extract.pipeline import Job, Progress, Stats, compute_name, extract_shards
from extract.resume import Missing
from omni.device import launcher_number
from omni.errors import OmniError
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
    ray_workers: int = 0,
    allow_mixed: bool = False,
) -> Stats:
    """Make this rank's missing shards, and the index if that was all.

    Args:
        job: the split.
        encoder: loaded already.
        missing: this rank's, from `extract.resume`.
        progress: called now and then.
        ray_workers: actors of a Ray cluster; 0: this process does the work.
        allow_mixed: go on where another kind of device or another precision began.

    Raises:
        OmniError: another kind began; and as `extract_shards`.
    """
    stats = Stats()
    if missing.shards:
        kind = Kind(encoder.device.type, compute_name(encoder))
        with claim(job.spec, kind, missing.shards, allow_mixed):
            open_for_writing(job.spec, missing.stale)
            if ray_workers:
                from extract.ray_engine import run_ray

                threads = torch.get_num_threads()  # the bytes may depend on it: the same everywhere
                stats = run_ray(job, encoder, missing.shards, ray_workers, progress, threads)
            else:
                stats = extract_shards(job, encoder, missing.shards, progress)
    write_index(job.spec, len(job.plan))
    return stats
