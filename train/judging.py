"""How well a run answers rows of its table that don't train: what chooses its checkpoint.

Must not know how the rows were chosen, nor what is done with the figures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from typing_extensions import TypedDict

from omni.bridge.losses import per_row, token_losses
from omni.bridge.projector import Projector, project
from omni.bridge.prompt import build_turns
from omni.bridge.turns import Template
from omni.evaluation.share import Share
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer
from train.data import Judge


class TaskFigures(TypedDict):
    """n, n_tokens: rows and target tokens; ce: nats a target token; token_accuracy: teacher-forced."""

    n: int
    n_tokens: int
    ce: float
    token_accuracy: float


@torch.inference_mode()
def judge(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    judges: Sequence[Judge],
    template: Template,
    batch_size: int,
    share: Share,
) -> TaskFigures:
    """Figures of these rows; the same for any share of the work."""
    order = sorted(
        judges, key=lambda one: one.sample.features.shape[-2]
    )  # rows of an id stay in order
    sums = np.zeros((len(order), 3))  # nats, tokens right, tokens
    for at in share.batches(len(order), batch_size):
        part = [order[i] for i in at]
        soft = project(projector, [one.sample.features for one in part], lm.device)
        keys = [one.sample.key for one in part]
        batch = build_turns(lm, tok, soft, [one.turns for one in part], template, keys)
        losses = token_losses(lm, batch)
        values = (losses.nll, losses.correct.float(), torch.ones_like(losses.nll))
        for k, value in enumerate(values):
            sums[at, k] = per_row(value, losses.row, len(part))
    nll, right, n = np.sum(share.gather(sums), axis=0).sum(0)
    ce, accuracy = float(nll / n), float(right / n)
    return {"n": len(order), "n_tokens": int(n), "ce": ce, "token_accuracy": accuracy}
