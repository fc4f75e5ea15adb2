"""Processes that train together: who this one is, its device, and sums over all of them.

Must not know what is trained.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from omni.device import pick_device

RANK_TIMEOUT = timedelta(hours=2)  # the other ranks wait while rank 0 evaluates


@contextlib.contextmanager
def ranks(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world, device) of this process; joins the others when torchrun started them."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else None)
    if world == 1:
        yield 0, 1, torch.device(device)
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=RANK_TIMEOUT)
    try:
        yield dist.get_rank(), world, torch.device(device)
        dist.barrier()  # nobody hangs up while another still talks
    finally:
        dist.destroy_process_group()


def all_reduce(tensors: list[Tensor]) -> None:
    """Sum over ranks in place, as one message per dtype; nothing to do for a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    # In the order given, not a set's: that differs from process to process, and the ranks would
    # meet in different messages.
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        group = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in group])
        dist.all_reduce(flat)
        for t, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
            t.copy_(part.view_as(t))
