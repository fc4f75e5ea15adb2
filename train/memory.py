"""Memory of a training run: what keeps it flat, and how much it has taken. Must not know what takes
it.
"""

import os
import platform
import resource

import torch

PRIMITIVES = 64  # of oneDNN, kept at once: a step of a projector takes some ten


def keep_primitives_few() -> None:
    """On a CPU oneDNN keeps what it compiled for each of the last 1,024 shapes, and a training has
    a new one each step. Read by oneDNN at its first operation; what the user has set stays."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))


def memory_gb(device: torch.device) -> float:
    """Peak so far: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
