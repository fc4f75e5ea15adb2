"""What moves the demo LM's weights: AdamW, or Muon for the layers' matrices.

Must not know what is learned.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from omni.nanochat import NanoChat

# Newton-Schulz, five steps of a quintic that brings singular values near 1 (Jordan et al. 2024,
# "Muon: an optimizer for hidden layers in neural networks").
_QUINTIC, _STEPS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal; matrices of one shape together, in fp32.

    torch's own computes in bf16, one matrix at a time: where a CPU has no bf16 that is three
    quarters of a training step of this LM.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; each matrix moves by lr in every direction it is asked to move in."""
        for group in self.param_groups:
            alike: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for (rows, columns), matrices in alike.items():
                steps = orthogonal(torch.stack([self._towards(p, group) for p in matrices]))
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for p, step in zip(matrices, steps, strict=True):
                    p.sub_(step, alpha=rate)

    def _towards(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        """Nesterov's momentum of a matrix."""
        mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        assert p.grad is not None
        mean.lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(mean, group["momentum"])


def orthogonal(x: Tensor) -> Tensor:
    """Each matrix of x (N, rows, columns) with its singular values brought near 1."""
    a, b, c = _QUINTIC
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.mT if tall else x


class Optimiser:
    """Several as one, their rates following one schedule."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.groups = [group for part in parts for group in part.param_groups]
        self.rates = [float(group["lr"]) for group in self.groups]

    def step(self, factor: float) -> None:
        """One step at `factor` times the rates; gradients are dropped."""
        for group, rate in zip(self.groups, self.rates, strict=True):
            group["lr"] = rate * factor
        for part in self.parts:
            part.step()
            part.zero_grad(set_to_none=True)


def adam(lm: NanoChat, lr: float) -> Optimiser:
    """AdamW; lookup tables learn five times faster, since few rows meet a gradient at once."""
    tables = [p for n, p in lm.named_parameters() if "wte" in n or "value_embeds" in n]
    rest = [p for n, p in lm.named_parameters() if not ("wte" in n or "value_embeds" in n)]
    groups = [{"params": tables, "lr": 5 * lr}, {"params": rest, "lr": lr}]
    return Optimiser([torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)])


def muon(lm: NanoChat, lr: float) -> Optimiser:
    """Muon for the layers' matrices, which then learn to look up in a tenth of AdamW's steps; AdamW
    for all the rest, at a rate where tables move as fast."""
    named = dict(lm.named_parameters())
    matrices = {n: p for n, p in named.items() if ".h." in n and "gate" not in n}
    tables = [p for n, p in named.items() if "wte" in n or "value_embeds" in n]
    rest = [p for n, p in named.items() if n not in matrices and all(p is not t for t in tables)]
    groups = [{"params": tables, "lr": lr}, {"params": rest, "lr": lr / 4}]
    return Optimiser(
        [
            Muon(matrices.values(), lr),
            torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0),
        ]
    )
