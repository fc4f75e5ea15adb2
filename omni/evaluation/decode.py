"""Features to text: the one way a projector and the frozen LM write down what they hear.

Figures and `omni-transcribe` both come here, so that what is measured is what is heard. Must not
know where features come from, nor what becomes of the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from omni.bridge.projector import Projector, project
from omni.bridge.prompt import build_turns, row_limit
from omni.bridge.turns import Template, Turn
from omni.encoder import WHISPER_FRAMES_PER_SECOND, Bound, most_said
from omni.nanochat.generate import generate
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int | None = None
    seed: int = 0


GREEDY = Sampling()


@torch.inference_mode()
def decode(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    features: Sequence[np.ndarray],
    template: Template,
    batch_size: int = 32,
    max_new: int | None = None,
    sampling: Sampling = GREEDY,
    rate: float = WHISPER_FRAMES_PER_SECOND,
    rows: Sequence[Sequence[Turn]] | None = None,
) -> list[list[int]]:
    """Token ids that the LM writes after each utterance's audio, its end left out.

    Args:
        features: (T, d) or (L, T, d) each.
        batch_size: utterances that are decoded together.
        max_new: cap on new tokens of each; None: what can be said in its time (`most_said`), as far
            as the LM's rows reach.
        rate: frames a second.
        rows: the turns of each utterance's row, the last one open; None: the template's prompt.
    """
    # A new document is as much an end as the answer's own.
    stops = {template.end(tok), tok.special("bos")}
    out: list[list[int]] = []
    for begin in range(0, len(features), batch_size):
        part = features[begin : begin + batch_size]
        soft = project(projector, part, lm.device)
        asked = (
            [template.repeat(None)] * len(part)
            if rows is None
            else rows[begin : begin + batch_size]
        )
        batch = build_turns(lm, tok, soft, asked, template)
        room = [row_limit(lm) - n for n in batch.lengths.tolist()]
        bounds = [
            _within(most_said(x.shape[-2], rate), most) if max_new is None else Bound(max_new)
            for x, most in zip(part, room, strict=True)
        ]
        out += generate(
            lm, batch.rows, batch.ve_rows, batch.lengths, stops,
            [bound.tokens for bound in bounds],
            sampling.temperature, sampling.top_k, sampling.seed,
            partial(_more, tok, bounds), batch.heard,
        )  # fmt: skip
    return out


def _within(bound: Bound, most: int) -> Bound:
    """The bound, or `most` tokens: nobody speaks so fast all along, so that it seldom cuts."""
    return bound if bound.tokens <= most else replace(bound, tokens=most)


def _more(tok: Tokenizer, bounds: Sequence[Bound], row: int, ids: Sequence[int]) -> bool:
    """Whether a row whose tokens are used up may still write: its letters are not."""
    return not bounds[row].reached(len(ids), lambda: tok.decode(ids))
