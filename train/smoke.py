"""Plumbing test: features, projector, soft tokens in front of text, a random nanochat, gradients back.

It proves that the pieces fit, and nothing about hearing. The LM trains along here, and only here:
nanochat starts with output projections of zero, so a frozen random one would pass no gradient to
its input. Must not know where the features come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.bridge.projector import Projector, build_projector
from omni.bridge.prompt import build_batch
from omni.bridge.turns import Template, choose_template
from omni.nanochat import NanoChat, NanoChatConfig, random_init
from omni.nanochat.tokenizer import ByteTokenizer

FALL = 0.5  # nats a token that the loss must fall by
DEPTH = 6
WIDTH = 64 * DEPTH  # nanochat's rule: 64 channels a layer
HEAD_DIM = 128
STACK = 10  # frames to a soft token: 5 a second, since most of a step is spent on audio positions


@dataclass(frozen=True)
class SmokeResult:
    """What the run showed.

    Attributes:
        losses: nats a target token, one a step.
        projector_grad: norm of the projector's gradient at the last step; 0 would mean that the
            LM learned the texts by heart and the audio path is cut.
    """

    losses: list[float]
    projector_grad: float

    @property
    def passed(self) -> bool:
        """Whether the loss fell by at least `FALL` and a gradient came through to the projector."""
        return self.losses[0] - self.losses[-1] >= FALL and self.projector_grad > 0


def smoke(
    features: Sequence[Tensor],
    texts: Sequence[str],
    steps: int = 50,
    seed: int = 0,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> SmokeResult:
    """Train a projector and a random nanochat of 6 layers together on a handful of clips.

    Args:
        features: (T, d) encoder frames of each clip.
        texts: what each clip should be answered with.
        steps: optimiser steps, each on all clips.
        seed: of both models' weights.
        device: where they train.
        on_step: told the step (from 1) and its loss.
    """
    torch.manual_seed(seed)
    tok = ByteTokenizer()
    lm = random_init(_config(tok.vocab_size), era="E", seed=seed).to(device)
    d_in = features[0].shape[-1]
    projector = build_projector("mlp", d_in, WIDTH, lm.n_ve, lm.kv_dim, stack=STACK).to(device)
    template = choose_template({"kind": "base"})
    frames = torch.nn.utils.rnn.pad_sequence([f.float() for f in features], batch_first=True)
    frames = frames.to(device)  # (B, T, d)
    lengths = torch.tensor([len(f) for f in features], device=device)
    optimizer = torch.optim.AdamW(
        [*projector.parameters(), *lm.parameters()], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0
    )

    losses = []
    for step in range(1, steps + 1):
        loss = _loss(lm, tok, projector, frames, lengths, texts, template)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        grad = torch.nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        on_step(step, losses[-1])
    return SmokeResult(losses, float(grad))


def _config(vocab_size: int) -> NanoChatConfig:
    """nanochat's `d6` with room for 5 s of audio and a line of bytes."""
    heads = WIDTH // HEAD_DIM
    return NanoChatConfig(256, vocab_size, DEPTH, heads, heads, WIDTH, window_pattern="SSSL")


def _loss(
    lm: NanoChat,
    tok: ByteTokenizer,
    projector: Projector,
    frames: Tensor,
    lengths: Tensor,
    texts: Sequence[str],
    template: Template,
) -> Tensor:
    """Mean cross-entropy over the text of all clips, nats a token. frames: (B, T, d)."""
    batch = build_batch(lm, tok, projector(frames, lengths), texts, template)
    logits = lm.forward_embeds(batch.rows, batch.ve_rows, positions=batch.positions)
    return F.cross_entropy(logits, batch.targets[batch.positions])
