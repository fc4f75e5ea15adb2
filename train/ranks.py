"""Processes that train together: who this one is, its device, sums over all of them, and what they
must agree on before the first step.

Two ways to talk. Gradients go over the device's own (NCCL between cards), which waits for a step and no
longer. All else goes over gloo between the hosts: there a rank may wait as long as another works, and
one that is gone is noticed by its connection. Must not know what is trained.
"""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from omni.device import launcher_number, pick_device
from omni.errors import OmniError, SaidElsewhere, brief, is_out_of_memory, one_line

T = TypeVar("T")
CPU = torch.device("cpu")

HOST_TIMEOUT = timedelta(hours=2)  # for a rank that reads, evaluates or saves while others wait
STEP_TIMEOUT = timedelta(minutes=30)  # between cards: a step, and a slow store before it
_TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_MEND = "start the processes with torchrun, or unset WORLD_SIZE to train alone"
_SPEAK_FIRST = (
    1.0  # seconds: torchrun ends all ranks when one has ended, and rank 0 has a line to say
)

_cards: list[
    dist.ProcessGroup
] = []  # of this process: NCCL between the cards, where there are some


@dataclass(frozen=True)
class Peers:
    """The ranks of a run as one of them sees them. Every method is called by all of them, in the
    same order; alone each is a plain call."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    def gather(self, mine: T) -> list[T]:
        """What each rank gives, in order of rank; on all of them. Pickled: for a peer, no stranger.

        Raises:
            OmniError: a rank is gone.
        """
        if self.world == 1:
            return [mine]
        out: list[T | None] = [None] * self.world
        try:
            dist.all_gather_object(out, mine)
        except RuntimeError as error:
            raise _gone(error) from error
        return out  # type: ignore[return-value]  # all of them are there now

    def agreed(self, job: Callable[[], T]) -> T:
        """What `job` returns here, once it has succeeded on every rank.

        Raises:
            Exception: what `job` raised on the first rank where it failed. Rank 0 raises it, with the
                number of that rank in front, and the others `SaidElsewhere`.
        """
        if self.world == 1:
            return job()
        result: list[T] = []
        failure: Exception | None = None
        try:
            result.append(job())
        except Exception as error:  # whatever it is, the others must hear of it
            failure = error
        ends = self.gather(None if failure is None else _told(failure))
        for rank, end in enumerate(ends):
            if end is not None:
                self._end(rank, end, failure)
        return result[0]

    def _end(self, rank: int, end: OmniError, mine: Exception | None) -> None:
        """Raise what ended `rank`, where it is to be read."""
        if self.rank:
            raise SaidElsewhere(end.what, end.where, end.mend, end.exit_code) from mine
        if rank == 0 and mine is not None:
            raise mine
        where = f"rank {rank}" + (f", {end.where}" if end.where else "")
        raise OmniError(end.what, where, end.mend, end.exit_code)

    def first(self, job: Callable[[], T]) -> T:
        """What `job` returns on rank 0, which alone calls it: for what the ranks might see differently
        (a folder over a network, some seconds behind).

        Raises:
            Exception: as `agreed`.
        """
        if self.world == 1:
            return job()
        box = [self.agreed(lambda: job() if self.rank == 0 else None)]
        try:
            dist.broadcast_object_list(box, src=0)
        except RuntimeError as error:
            raise _gone(error) from error
        return box[0]  # type: ignore[return-value]  # rank 0's

    def wait(self) -> None:
        """Until all ranks are here.

        Raises:
            OmniError: a rank is gone.
        """
        self.gather(None)


@contextlib.contextmanager
def ranks(device: str) -> Iterator[Peers]:
    """This process among its peers; joins the others when torchrun started them.

    Raises:
        OmniError: a variable of torchrun's that is no number, is not there, or leads to nobody; no such
            device on one of the ranks, or devices of two kinds.
    """
    world = launcher_number(os.environ, "WORLD_SIZE", least=1) if "WORLD_SIZE" in os.environ else 1
    if world == 1:
        yield Peers(device=torch.device(pick_device(device)))
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
    _join()
    try:
        peers = Peers(rank, world, _device(Peers(rank, world), device))
        yield peers
        peers.wait()  # nobody hangs up while another still talks
    except BaseException as error:
        if isinstance(error, SaidElsewhere):
            time.sleep(_SPEAK_FIRST)
        _drop_locals(error)
        raise
    finally:
        _leave()


def _leave() -> None:
    """Destroy the groups, and with them gloo's threads.

    A thread of gloo's may still be at the last message: it lets go of a tensor, which takes the GIL.
    If Python has begun to end by then, the thread can't have it and aborts the process, whatever its
    status was to be. The group waits for its threads when it goes, and it goes here if nobody holds it.
    """
    _cards.clear()
    dist.destroy_process_group()


def _drop_locals(error: BaseException) -> None:
    """Of the calls that an error ended: those of torch hold the group for as long as there is the error."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and all(one is not other for other in seen):
            seen.append(one)
            traceback.clear_frames(one.__traceback__)
            todo += [one.__cause__, one.__context__]


def _join() -> None:
    # Its functions have the group of that moment as a default. Torch imports it with the first optimiser:
    # imported in a group it would hold it for good, see `_leave`.
    import torch.distributed.nn  # noqa: F401

    try:
        dist.init_process_group("gloo", timeout=HOST_TIMEOUT)
    except (ValueError, RuntimeError) as error:  # a rank outside of its world, a port that is taken
        raise OmniError(
            f"the ranks can't meet ({one_line(str(error))})", "the environment", _MEND
        ) from error


def _device(peers: Peers, name: str) -> torch.device:
    """This rank's; where it is a card, the cards are joined too."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = peers.agreed(lambda: torch.device(pick_device(name, local_rank)))
    kinds = peers.gather(device.type)
    peers.agreed(lambda: _refuse_mixed(kinds, name))
    if device.type == "cuda":
        _cards.append(dist.new_group(backend="nccl", timeout=STEP_TIMEOUT))
    return device


def _refuse_mixed(kinds: list[str], name: str) -> None:
    for rank, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise OmniError(
                f"rank {rank} computes on {kind}, rank 0 on {kinds[0]}", f"--device {name}",
                "start all ranks on machines of one kind, or give --device cpu",
            )  # fmt: skip


def _told(error: Exception) -> OmniError:
    """Any error as one that can be sent and said in a line."""
    if isinstance(error, OmniError):
        return OmniError(error.what, error.where, error.mend, error.exit_code)
    return OmniError(brief(error))


def _gone(error: RuntimeError) -> OmniError:
    return OmniError(
        f"another rank has ended ({one_line(str(error))})",
        mend="its own output says why; the last checkpoint is whole",
    )


def all_reduce(tensors: list[Tensor]) -> None:
    """Sum over ranks in place, as one message per dtype; nothing to do for a single process.

    Raises:
        OmniError: a rank is gone.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    # In the order given, not a set's: that differs from process to process, and the ranks would
    # meet in different messages.
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        group = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in group])
        try:
            dist.all_reduce(flat, group=_cards[0] if flat.is_cuda and _cards else None)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise _gone(error) from error
        for t, part in zip(group, flat.split([t.numel() for t in group]), strict=True):
            t.copy_(part.view_as(t))
