"""Which torch device a command computes on; the one place where `auto` is decided.

Must not know what is computed.
"""

import torch

from omni.errors import OmniError


def pick_device(name: str, local_rank: int | None = None) -> str:
    """`auto` is a GPU if there is one (this rank's, where ranks share a machine), else the CPU.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:1".
        local_rank: number of this process on its machine; None if it is alone.

    Raises:
        OmniError: a CUDA device is asked for and torch sees none.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return "cpu"
        name = "cuda"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise OmniError("torch sees no CUDA device", f"--device {name}", "use --device cpu")
    return f"cuda:{local_rank}" if name == "cuda" and local_rank is not None else name
