"""Memory of a training run: how much it has taken. Must not know what takes it."""

import platform
import resource

import torch


def memory_gb(device: torch.device) -> float:
    """Peak so far: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
