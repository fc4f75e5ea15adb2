"""One optimiser step: project, splice, score with the frozen LM, and update the projector.

The loss of a step is the sum over its target tokens divided by their number, over all
micro-batches and ranks: a long utterance counts by its tokens, and neither the micro-batch size
nor the number of ranks changes the gradient. Must not know files.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from omni.bridge.losses import token_losses
from omni.bridge.projector import Projector
from omni.bridge.prompt import Template, build_batch
from omni.errors import OmniError
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer
from train.ctc import ctc_loss
from train.ranks import all_reduce
from train.stream import Packed


@dataclass(frozen=True)
class StepFigures:
    """Sums of one step over all ranks."""

    loss: float
    token_accuracy: float
    n_tokens: int
    n_soft: int
    n_frames: int
    n_padded: int
    n_unserved: int  # rows that the CTC loss could not count
    grad_norm: float


@dataclass
class Trainee:
    """What a step works on. `micro` is the number of samples in one forward pass; `ctc` the
    weight of the auxiliary loss of ctc.py."""

    lm: NanoChat
    tok: Tokenizer
    projector: Projector
    template: Template
    optimizer: torch.optim.Optimizer
    micro: int = 32
    clip: float = 1.0
    ctc: float = 0.0


def make_optimizer(projector: Projector, lr: float) -> torch.optim.AdamW:
    """AdamW over the projector alone: betas 0.9 and 0.95, no decay."""
    return torch.optim.AdamW(
        (p for p in projector.parameters() if p.requires_grad),
        lr=lr,
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )


def learning_rate(step: int, peak: float, warmup: int, total: int) -> float:
    """Of step 0 to total - 1: linear up over `warmup` steps, then a cosine down to a tenth."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def train_step(trainee: Trainee, packed: Packed, lr: float) -> StepFigures:
    """Gradients of one global batch, clipped, and one update.

    Raises:
        OmniError: the loss or the gradient is not finite; names the batch. Nothing was updated.
    """
    sums = backward(trainee, packed)
    parameters = [p for g in trainee.optimizer.param_groups for p in g["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, trainee.clip).item()
    nll, correct, n_tokens, n_soft, n_frames, n_padded, n_unserved = sums.tolist()
    if not (math.isfinite(nll) and math.isfinite(norm)):
        raise OmniError(
            f"loss {nll / n_tokens:.3g}, gradient norm {norm:.3g}",
            where=f"pass {packed.at.number}, batch {packed.at.batch}: {' '.join(packed.keys[:4])}",
            mend="lower --lr, or look at these utterances; the last checkpoint is whole",
        )
    for group in trainee.optimizer.param_groups:
        group["lr"] = lr
    trainee.optimizer.step()
    return StepFigures(
        loss=nll / n_tokens,
        token_accuracy=correct / n_tokens,
        n_tokens=int(n_tokens),
        n_soft=int(n_soft),
        n_frames=int(n_frames),
        n_padded=int(n_padded),
        n_unserved=int(n_unserved),
        grad_norm=norm,
    )


def backward(trainee: Trainee, packed: Packed) -> Tensor:
    """Set the projector's gradients of one global batch, summed over ranks.

    Returns:
        float64 sums over all ranks: nll, correct, target tokens, soft tokens, frames, frames with
        padding, rows that the CTC loss could not count.
    """
    trainee.optimizer.zero_grad(set_to_none=True)
    device = trainee.lm.device
    # The divisor is known before the first forward pass: targets are text and its end.
    counts = [len(trainee.tok.encode(text)) + 1 for text in packed.texts]
    total = torch.tensor(float(sum(counts)), dtype=torch.float64, device=device)
    all_reduce([total])
    sums = torch.zeros(7, dtype=torch.float64, device=device)
    for at in _micro_batches(packed, trainee.micro):
        sums += _micro_step(trainee, packed, at, total)
    parameters = [p for g in trainee.optimizer.param_groups for p in g["params"]]
    for p in parameters:
        if p.grad is None:  # an empty share
            p.grad = torch.zeros_like(p)
    all_reduce([sums, *(p.grad for p in parameters if p.grad is not None)])
    return sums


def _micro_step(trainee: Trainee, packed: Packed, at: slice, total: Tensor) -> Tensor:
    lm, device = trainee.lm, trainee.lm.device
    lengths = packed.lengths[at]
    features = packed.features[at][..., : int(lengths.max()), :]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        dtype = trainee.projector.row_head.weight.dtype
        soft = trainee.projector(
            features.to(device, non_blocking=True).to(dtype), lengths.to(device)
        )
        batch = build_batch(
            lm, trainee.tok, soft, packed.texts[at], trainee.template, packed.keys[at]
        )
        losses = token_losses(lm, batch)
    loss = losses.nll.sum()
    unserved = torch.zeros((), dtype=torch.long, device=device)
    if trainee.ctc:
        ctc, unserved = ctc_loss(lm, trainee.tok, soft, packed.texts[at])
        loss = loss + trainee.ctc * ctc
    (loss / total).backward()
    values = [
        losses.nll.detach().double().sum(),
        losses.correct.sum(),
        losses.nll.numel(),
        soft.lengths.sum(),
        lengths.sum(),
        features.shape[-2] * len(lengths),
        unserved,
    ]
    return torch.stack([torch.as_tensor(v, dtype=torch.float64, device=device) for v in values])


def _micro_batches(packed: Packed, size: int) -> Iterable[slice]:
    n = len(packed.texts)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
