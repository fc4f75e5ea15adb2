"""One optimiser step: project, splice, score with the frozen LM, and update the projector.

The loss of a step is the sum over its target tokens divided by their number, over all
micro-batches and ranks: a long utterance counts by its tokens, and neither the micro-batch size
nor the number of ranks changes the gradient. Must not know files.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omni.bridge.losses import asked_logits, divergence
from omni.bridge.projector import Projector, Soft
from omni.bridge.prompt import as_soft, no_soft, splice
from omni.bridge.turns import Layout, Template, Turn, lay_out
from omni.errors import OmniError
from omni.nanochat.lora import Lora
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
    """What a step works on; adapters are worn by the LM. `micro` is the number of samples in one
    forward pass; `ctc` the weight of the auxiliary loss of ctc.py, `scale` of the loss for an LM in
    fp16; `bucket` what the frames of a batch are padded to a multiple of. `self_loss`: of answers that
    are the LM's own, "ce" or "kl". `everywhere`: adapters act in every row, for comparison. `seed`: of
    the adapters' dropout, `rank` too."""

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
    self_loss: str = "ce"
    everywhere: bool = False
    seed: int = 0
    rank: int = 0
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


def make_optimizer(
    projector: Projector, lr: float, lora: Lora | None = None, lora_lr: float = 0.0
) -> torch.optim.AdamW:
    """AdamW over the projector, unless it is frozen, and the adapters, which have a rate of their own:
    betas 0.9 and 0.95, no decay. A group's `share` is its rate's share of `lr`."""
    groups = []
    for module, rate in ((projector, lr), (lora, lora_lr)):
        own = [] if module is None else [p for p in module.parameters() if p.requires_grad]
        if own:
            groups.append({"params": own, "lr": rate, "share": rate / lr})
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)


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
        group["lr"] = lr * group["share"]
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
    """Set the gradients of one global batch, summed over ranks: the projector's and the adapters'.

    What is counted is known on the host before anything is computed; nothing here waits for the
    device.

    Returns:
        float64 sums over all ranks: nll, correct, target tokens, soft tokens, frames, frames with
        padding, rows that the CTC loss could not count.
    """
    trainee.optimizer.zero_grad(set_to_none=True)
    device = trainee.lm.device
    if trainee.lm.lora is not None and trainee.lm.lora.dropout:
        # The same after a resumption, and when the step is tried again with a smaller scale.
        torch.manual_seed(_mixed(trainee.seed, *packed.at, trainee.rank))
    parts = [_host(trainee, packed, *at) for at in _micro_batches(packed, trainee.micro)]
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
    utterance; texts, ids: what each says, as text and as tokens; rows, layouts: what the LM is asked,
    of each utterance and then of text alone."""

    features: Tensor
    draws: Draws | None
    n_frames: list[int]
    texts: list[str]
    keys: list[str]
    n_soft: list[int]
    ids: list[list[int]]
    rows: list[tuple[Turn, ...]]
    layouts: list[Layout]

    def counts(self, ctc: bool, bucket: int) -> list[int]:
        """Target tokens (an answer's and its end), soft tokens, frames, frames with padding, and
        utterances that a CTC loss has no room for."""
        return [
            sum(len(layout.answers) for layout in self.layouts),
            sum(self.n_soft),
            sum(self.n_frames),
            -(-max(self.n_frames, default=0) // bucket) * bucket * len(self.ids),
            unserved(self.ids, self.n_soft) if ctc else 0,
        ]


def _host(trainee: Trainee, packed: Packed, at: slice, alone: slice = slice(0)) -> _Host:
    n_frames, texts = packed.lengths[at].tolist(), packed.texts[at]
    draws = None if packed.draws is None else packed.draws.of(at)
    longest = max(n_frames, default=0)
    if draws is not None:
        longest = max(one.n_in for one in draws.each)
    features = packed.features[at][..., :longest, :]
    n_soft = [trainee.projector.output_length(n) for n in n_frames]
    ids = [trainee.tok.encode(text) for text in texts]
    if packed.rows is None:
        rows = [trainee.template.repeat(text) for text in texts]
    else:
        rows = packed.rows[at] + packed.rows[len(packed.texts) :][alone]
    layouts = lay_out(rows, n_soft, trainee.template, trainee.tok)
    return _Host(features, draws, n_frames, texts, packed.keys[at], n_soft, ids, rows, layouts)


def _micro_step(trainee: Trainee, part: _Host, total: Tensor) -> Tensor:
    """Adds to the gradients; float64 sums of nll and correct."""
    lm = trainee.lm
    soft = _soft(trainee, part) if part.n_frames else no_soft(lm)
    positions = -(-trainee.bucket // trainee.projector.stack)  # that a bucket of frames becomes
    keys = [*part.keys, *[""] * (len(part.rows) - len(part.keys))]
    heard = True if trainee.everywhere else None
    batch = splice(lm, soft, part.layouts, keys, positions, heard)
    logits = asked_logits(lm, batch)
    targets = batch.targets.flatten()[batch.asked]
    nll = F.cross_entropy(logits, targets, reduction="none")
    correct = logits.argmax(-1) == targets
    if trainee.self_loss == "kl" and any(own for layout in part.layouts for own in layout.own):
        nll = _own_loss(trainee, part, logits, nll)
    del logits  # one table of the vocabulary less while the backward pass runs
    loss = nll.sum()
    if trainee.ctc and part.n_frames:
        loss = loss + trainee.ctc * ctc_loss(trainee.directions(), soft.rows, part.n_soft, part.ids)
    if loss.requires_grad:  # a share of text alone in which no adapter acts
        (loss * trainee.scale.value / total).backward()
    return torch.stack([nll.detach().double().sum(), correct.sum().double()])


def _soft(trainee: Trainee, part: _Host) -> Soft:
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
        return trainee.project(features, lengths)


def _own_loss(trainee: Trainee, part: _Host, logits: Tensor, nll: Tensor) -> Tensor:
    """`nll` (N,), with the divergence from what the bare LM says to the transcript where the answer is
    its own."""
    lm, spoken = trainee.lm, len(part.texts)
    mine = [i for i in range(spoken) if any(part.layouts[i].own)]
    ids = [part.ids[i] for i in mine]
    rows = [part.rows[i] for i in mine]
    layouts = lay_out(rows, [len(one) for one in ids], trainee.template, trainee.tok)
    own = [flag for layout in layouts for flag in layout.own]
    with torch.no_grad():
        batch = splice(lm, as_soft(lm, ids), layouts, [part.keys[i] for i in mine], heard=False)
        teacher = asked_logits(lm, batch)[_places(own, lm.device)]
    at = _places([flag for layout in part.layouts for flag in layout.own], lm.device)
    return nll.index_copy(0, at, divergence(logits[at], teacher))


def _places(flags: Sequence[bool], device: torch.device) -> Tensor:
    """Where they are set; known on the host, so that nobody has to ask the device."""
    at = torch.tensor([i for i, flag in enumerate(flags) if flag], dtype=torch.long)
    return at.to(device, non_blocking=True)


def _mixed(*numbers: int) -> int:
    """One seed of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _micro_batches(packed: Packed, size: int) -> list[tuple[slice, slice]]:
    """Utterances, and the rows of text alone that go with them, dealt evenly."""
    n = len(packed.texts)
    alone = 0 if packed.rows is None else len(packed.rows) - n
    begins = [*range(0, n, size)] or ([0] if alone else [])
    parts = len(begins)
    return [
        (slice(b, min(b + size, n)), slice(k * alone // parts, (k + 1) * alone // parts))
        for k, b in enumerate(begins)
    ]
