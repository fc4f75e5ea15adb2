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

from omni.device import launcher_number, pick_device
from omni.errors import OmniError, one_line

RANK_TIMEOUT = timedelta(hours=2)  # the other ranks wait while rank 0 evaluates
_TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_MEND = "start the processes with torchrun, or unset WORLD_SIZE to train alone"


@contextlib.contextmanager
def ranks(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world, device) of this process; joins the others when torchrun started them.

    Raises:
        OmniError: a variable of torchrun's that is no number, is not there, or leads to nobody.
    """
    world = launcher_number(os.environ, "WORLD_SIZE", least=1) if "WORLD_SIZE" in os.environ else 1
    if world == 1:
        yield 0, 1, torch.device(pick_device(device))
        return
    missing = [name for name in _TORCHRUN if not os.environ.get(name)]
    if missing:
        what = f"WORLD_SIZE is {world}, without {' and '.join(missing)}"
        raise OmniError(what, "the environment", _MEND)
    for name in (name for name in (*_TORCHRUN, "LOCAL_RANK") if name != "MASTER_ADDR"):
        if name in os.environ:
            launcher_number(os.environ, name)
    rank = int(os.environ["RANK"])
    if rank >= world:  # torch would wait for the others for ever
        raise OmniError(f"RANK is {rank} where WORLD_SIZE is {world}", "the environment", _MEND)
    device = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    _join("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield dist.get_rank(), world, torch.device(device)
        dist.barrier()  # nobody hangs up while another still talks
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> None:
    try:
        dist.init_process_group(backend, timeout=RANK_TIMEOUT)
    except (ValueError, RuntimeError) as error:  # a rank outside of its world, a port that is taken
        raise OmniError(
            f"the ranks can't meet ({one_line(str(error))})", "the environment", _MEND
        ) from error


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
