"""CUDA without a card: fake tensors that know device and dtype, and hold no values.

Who asks such a tensor for a value (item, tolist, nonzero) fails: on a card it would wait.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operation:
    """One call: its name, and dtype and shape of what came out."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Operations(TorchDispatchMode):
    """Keeps what runs on the fake card."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.device.type == "cuda":
                name = str(func).removeprefix("aten.").partition(".")[0]
                self.seen.append(Operation(name, value.dtype, tuple(value.shape)))
        return out


@contextlib.contextmanager
def fake_cuda() -> Iterator[Operations]:
    """Inside, "cuda" is a device of fake tensors, autocast included."""
    real = torch.autocast

    def autocast(kind: str, dtype: torch.dtype, enabled: bool = True) -> Any:
        return _autocast(dtype) if kind == "cuda" and enabled else real(kind, dtype, enabled)

    pinned = mock.patch.object(torch.Tensor, "pin_memory", lambda self: self)
    # The engine of autograd asks the driver: what is seen here is the forward pass.
    forward_only = mock.patch.object(torch.Tensor, "backward", return_value=None)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        Operations() as operations,
        mock.patch.object(torch, "autocast", autocast),
        pinned,
        forward_only,
    ):
        yield operations


@contextlib.contextmanager
def _autocast(dtype: torch.dtype) -> Iterator[None]:
    """As torch.autocast does, which refuses where no card is."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)
