"""Which torch device a command computes on, and in which dtype its LM, the one place where `auto` is
decided; and which of several processes it is. Must not know what is computed, nor import torch to check a name.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from omni.device.nvidia import find_nvidia
from omni.errors import OmniError, one_line, printable

if TYPE_CHECKING:
    import torch

LM_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # by option, as torch says


def is_device_name(name: str) -> bool:
    """Whether it is "auto", "cpu", "cuda" or "cuda:N"; torch is not asked whether there is one."""
    return re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name) is not None


def pick_device(name: str, local_rank: int | None = None) -> str:
    """`auto` is a GPU if there is one (this rank's, where ranks share a machine), else the CPU; beside
    a card that torch can't use a line on standard error says so, and why.

    The one place that sets CUDA's current device, for every command and rank: streams, events and
    pinned copies belong to it wherever no device is named.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:1".
        local_rank: number of this process on its machine; None if it is alone. Taken modulo the
            devices that are visible: SLURM may show each task one, and number the tasks all the same.

    Raises:
        OmniError: no such kind of device, or one that torch does not see here.
    """
    import torch  # seconds: names are checked without it

    option = f"--device {name}"
    if not is_device_name(name):
        raise OmniError("no such device", option, "use auto, cpu, cuda or cuda:1")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu":
            _warn_of_an_idle_card()
    if name == "cpu":
        return name
    if not torch.cuda.is_available():
        idle = f" ({why_no_cuda()})" if find_nvidia().devices else ""
        mend = (
            "omni-doctor says what to install; or use --device cpu" if idle else "use --device cpu"
        )
        raise OmniError(f"torch sees no CUDA device{idle}", option, mend)
    there = torch.cuda.device_count()
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank % max(there, 1)}"
    index = int(name.partition(":")[2] or 0)
    if index >= there:
        last = f"cuda:{there - 1}"
        raise OmniError(f"torch sees {there} CUDA devices, the last is {last}", name, f"use {last}")
    torch.cuda.set_device(index)
    return name


def pick_dtype(name: str, device: "str | torch.device") -> "torch.dtype":
    """What the LM's matrices are held and multiplied in.

    Args:
        name: a key of `LM_DTYPES`, or "auto": fp32 on a CPU; on a card bf16, or fp16 where it would
            have to emulate that (before Ampere).
        device: where the LM goes; `pick_device` has made it current.

    Raises:
        OmniError: no such name.
    """
    import torch

    if name == "auto":
        if torch.device(device).type == "cpu":
            return torch.float32
        own = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if own else torch.float16
    if name not in LM_DTYPES:
        choices = f"auto, {', '.join(LM_DTYPES)}"
        raise OmniError("no such dtype", f"--lm-dtype {name}", f"use one of {choices}")
    found = getattr(torch, LM_DTYPES[name])
    assert isinstance(found, torch.dtype)
    return found


def _warn_of_an_idle_card() -> None:
    """Nothing where there is none, or where it was hidden on purpose."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return
    devices = find_nvidia().devices
    if devices:
        print(
            printable(
                f"warning: computing on the CPU, many times slower, though there is an NVIDIA device "
                f"({devices[0]}): {why_no_cuda()}. omni-doctor says what to install; --device cpu is "
                "silent"
            ),
            file=sys.stderr,
            flush=True,
        )


def why_no_cuda() -> str:
    """torch's own reason for not using a card, in one line."""
    import torch

    try:
        torch.cuda.init()
    except Exception as error:  # AssertionError, RuntimeError, and what a broken driver may raise
        return one_line(str(error)).rstrip(".")
    return "torch gives no reason"


def launcher_number(environment: Mapping[str, str], name: str, least: int = 0) -> int:
    """A variable as a whole number.

    Args:
        environment: holds `name`.
        least: the smallest that makes sense.

    Raises:
        OmniError: it is no number, or a smaller one.
    """
    value = environment[name]
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()) or int(value) < least:
        raise OmniError(
            f"{name} is {value[:40]!r}, no whole number from {least} on",
            "the environment",
            "unset it, or start the processes with torchrun or srun",
        )
    return int(value)
