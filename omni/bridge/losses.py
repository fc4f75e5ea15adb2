"""The loss at supervised positions, of one batch of rows: what training minimises and figures sum.

Must not know where the rows come from, nor how sums over utterances or ranks are taken.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omni.bridge.prompt import Batch
from omni.nanochat.model import NanoChat


class TokenLosses(NamedTuple):
    """Per supervised position, in row order: nll (N,) fp32 nats, correct (N,) bool, row (N,)."""

    nll: Tensor
    correct: Tensor
    row: Tensor


def token_losses(lm: NanoChat, batch: Batch) -> TokenLosses:
    """Teacher-forced losses, with lm_head applied at supervised positions only."""
    logits = asked_logits(lm, batch)
    targets = batch.targets.flatten()[batch.asked]
    nll = F.cross_entropy(logits, targets, reduction="none")
    row = batch.asked.div(batch.targets.shape[1], rounding_mode="floor")
    return TokenLosses(nll, logits.argmax(-1) == targets, row)


def asked_logits(lm: NanoChat, batch: Batch) -> Tensor:
    """(N, vocab) fp32, at the positions where a target stands."""
    return lm.forward_embeds(batch.rows, batch.ve_rows, positions=batch.asked, heard=batch.heard)


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of next-token distributions, in nats: what an answer drawn from `logits`
    lacks of one drawn from `teacher`. Both (N, vocab); (N,) fp32."""
    aim = teacher.log_softmax(-1)
    return (aim.exp() * (aim - logits.log_softmax(-1))).sum(-1)


def per_row(values: Tensor, row: Tensor, n: int) -> np.ndarray:
    """Sums of `values` (N,) by `row` (N,), as (n,) float64."""
    sums = torch.zeros(n, dtype=torch.float64, device="cpu")
    return sums.index_add_(0, row.cpu(), values.double().cpu()).numpy()
