"""Memory of a training run: how much it has taken, and the line when there is no more.

Must not know what takes it.
"""

import contextlib
import platform
import resource
from collections.abc import Iterator

import torch

from omni.errors import OmniError, is_out_of_memory


@contextlib.contextmanager
def enough_memory(where: str, mend: str) -> Iterator[None]:
    """What happens inside may run out of memory.

    Raises:
        OmniError: it did; says where, and how to take less.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OmniError("out of memory", where, mend) from error


def halved(value: int, option: str) -> str:
    """The option with half its value, in words."""
    return f"{option} {max(value // 2, 1)} halves it"


def memory_gb(device: torch.device) -> float:
    """Peak so far: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
