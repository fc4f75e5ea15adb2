"""One optimiser step: project, splice, score with the frozen LM, and update the projector.

The loss of a step is the sum over its target tokens divided by their number, over all
micro-batches and ranks: a long utterance counts by its tokens, and neither the micro-batch size
nor the number of ranks changes the gradient. Must not know files.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.bridge.losses import token_losses
from omni.bridge.projector import Projector, Soft
from omni.bridge.prompt import build_batch
from omni.bridge.turns import Template
from omni.errors import OmniError
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer
from train.ctc import ctc_loss, token_directions, unserved
from train.draws import Draws, augmented
from train.ranks import all_reduce
from train.scaling import LossScale
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
    weight of the auxiliary loss of ctc.py, `scale` of the loss for an LM in fp16; `bucket` what
    the frames of a batch are padded to a multiple of."""

    lm: NanoChat
    tok: Tokenizer
    projector: Projector
    template: Template
    optimizer: torch.optim.Optimizer
    micro: int = 32
    clip: float = 1.0
    ctc: float = 0.0
    scale: LossScale = field(default_factory=LossScale)
    bucket: int = 1
    _compiled: list[Callable[[Tensor, Tensor], Soft]] = field(default_factory=list, repr=False)
    _directions: list[Tensor] = field(default_factory=list, repr=False)

    def compile(self) -> None:
        """Training passes compile the projector and each layer of the LM, for any shape."""
        self.lm.compile_layers()
        self._compiled[:] = [torch.compile(self.projector, dynamic=True)]

    def project(self, features: Tensor, lengths: Tensor) -> Soft:
        """The projector, compiled if it was asked for."""
        return (self._compiled or [self.projector])[0](features, lengths)

    def directions(self) -> Tensor:
        """What the CTC loss compares soft tokens with; (V, C), computed once."""
        if not self._directions:
            self._directions.append(token_directions(self.lm))
        return self._directions[0]


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
    parameters = [p for g in trainee.optimizer.param_groups for p in g["params"]]
    while True:
        sums = backward(trainee, packed)
        norm = torch.nn.utils.clip_grad_norm_(parameters, trainee.clip)
        # The one place where a step waits for the device.
        nll, correct, n_tokens, n_soft, n_frames, n_padded, n_unserved, norm = torch.cat(
            [sums, norm.double().reshape(1).to(sums.device)]
        ).tolist()
        if math.isfinite(norm) or not (math.isfinite(nll) and trainee.scale.lower()):
            break
    if not (math.isfinite(nll) and math.isfinite(norm)):
        raise OmniError(
            f"loss {nll / n_tokens:.3g}, gradient norm {norm:.3g}",
            where=f"pass {packed.at.number}, batch {packed.at.batch}: {' '.join(packed.keys[:4])}",
            mend="lower --lr, or look at these utterances; the last checkpoint is whole",
        )
    trainee.scale.passed(trainee.lm.dtype)
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

    What is counted is known on the host before anything is computed; nothing here waits for the
    device.

    Returns:
        float64 sums over all ranks: nll, correct, target tokens, soft tokens, frames, frames with
        padding, rows that the CTC loss could not count.
    """
    trainee.optimizer.zero_grad(set_to_none=True)
    device = trainee.lm.device
    parts = [_host(trainee, packed, at) for at in _micro_batches(packed, trainee.micro)]
    counts = torch.tensor(
        [part.counts(trainee.ctc > 0, trainee.bucket) for part in parts], dtype=torch.float64
    )
    counts = counts.reshape(-1, 5).sum(0).to(device, non_blocking=True)
    all_reduce([counts])
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for part in parts:
        sums += _micro_step(trainee, part, counts[0])
    parameters = [p for g in trainee.optimizer.param_groups for p in g["params"]]
    for p in parameters:
        if p.grad is None:  # an empty share
            p.grad = torch.zeros_like(p)
        elif trainee.scale.value != 1:
            p.grad.div_(trainee.scale.value)
    all_reduce([sums, *(p.grad for p in parameters if p.grad is not None)])
    return torch.cat([sums, counts])


class _Host(NamedTuple):
    """A micro-batch as the host knows it. features: (B, T, d) or (B, L, T, d); draws: what the
    device does to them first; n_frames, n_soft: frames (after that) and soft tokens of each
    utterance; ids: tokens of each text."""

    features: Tensor
    draws: Draws | None
    n_frames: list[int]
    texts: list[str]
    keys: list[str]
    n_soft: list[int]
    ids: list[list[int]]

    def counts(self, ctc: bool, bucket: int) -> list[int]:
        """Target tokens (a text's and its end), soft tokens, frames, frames with padding, and rows
        that a CTC loss has no room for."""
        return [
            sum(len(row) + 1 for row in self.ids),
            sum(self.n_soft),
            sum(self.n_frames),
            -(-max(self.n_frames) // bucket) * bucket * len(self.ids),
            unserved(self.ids, self.n_soft) if ctc else 0,
        ]


def _host(trainee: Trainee, packed: Packed, at: slice) -> _Host:
    n_frames, texts = packed.lengths[at].tolist(), packed.texts[at]
    draws = None if packed.draws is None else packed.draws.of(at)
    longest = max(n_frames) if draws is None else max(one.n_in for one in draws.each)
    features = packed.features[at][..., :longest, :]
    n_soft = [trainee.projector.output_length(n) for n in n_frames]
    ids = [trainee.tok.encode(text) for text in texts]
    return _Host(features, draws, n_frames, texts, packed.keys[at], n_soft, ids)


def _micro_step(trainee: Trainee, part: _Host, total: Tensor) -> Tensor:
    """Adds to the gradients; float64 sums of nll and correct."""
    lm, device = trainee.lm, trainee.lm.device
    features = part.features.to(device, non_blocking=True)
    if part.draws is not None:
        features = augmented(features, part.draws)
    # The projector alone, in the LM's dtype on a card: the LM is in it already, and autocast would
    # take its norms and squares through fp32.
    half = lm.dtype if lm.dtype != torch.float32 else torch.bfloat16
    with torch.autocast(device.type, half, enabled=device.type == "cuda" and lm.dtype == half):
        dtype = trainee.projector.row_head.weight.dtype
        lengths = torch.tensor(part.n_frames).to(device, non_blocking=True)
        features = F.pad(features.to(dtype), (0, 0, 0, -features.shape[-2] % trainee.bucket))
        soft = trainee.project(features, lengths)
    positions = -(-trainee.bucket // trainee.projector.stack)  # that a bucket of frames becomes
    batch = build_batch(
        lm, trainee.tok, soft, part.texts, trainee.template, part.keys, part.n_soft, positions
    )
    losses = token_losses(lm, batch)
    loss = losses.nll.sum()
    if trainee.ctc:
        loss = loss + trainee.ctc * ctc_loss(trainee.directions(), soft.rows, part.n_soft, part.ids)
    (loss * trainee.scale.value / total).backward()
    return torch.stack([losses.nll.detach().double().sum(), losses.correct.sum().double()])


def _micro_batches(packed: Packed, size: int) -> Iterable[slice]:
    n = len(packed.texts)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
