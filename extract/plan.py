"""Which utterance goes into which shard: a pure function, so every process computes the same plan.

Must not know about audio, encoders or files.
"""

import hashlib
from collections.abc import Sequence

from omni.errors import OmniError

SHARD_SIZE = 512
PLAN_SEED = 0


def make_plan(
    ids: Sequence[str],
    shard_size: int = SHARD_SIZE,
    seed: int = PLAN_SEED,
    limit: int | None = None,
) -> list[list[int]]:
    """Shuffle and cut: shard k holds utterances [k N, (k + 1) N) of one seeded order.

    The order is by sha256 of seed and id: the same on every machine and version, and a limited
    plan is the beginning of the whole one, so its full shards are kept when the limit goes.

    Args:
        ids: the manifest's ids, unique.
        shard_size: N >= 1.
        seed: another seed, another order.
        limit: only that many utterances.

    Returns:
        For each shard, positions in `ids`.
    """
    if shard_size < 1 or (limit is not None and limit < 1):
        raise OmniError("shard size and limit must be at least 1")
    order = sorted(
        range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}:{ids[i]}".encode()).digest()
    )
    order = order[:limit]
    return [order[start : start + shard_size] for start in range(0, len(order), shard_size)]


def shards_of_rank(n_shards: int, rank: int, world_size: int) -> list[int]:
    """The shards a process owns: every world_size-th, so ranks need no coordinator.

    Raises:
        OmniError: a rank outside 0..world_size-1.
    """
    if not 0 <= rank < world_size:
        raise OmniError(f"rank {rank} is not below the world size {world_size}", "--rank")
    return list(range(rank, n_shards, world_size))
