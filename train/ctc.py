"""An auxiliary loss that pulls each soft token towards the embedding of a text token it holds.

CTC whose output matrix is the LM's own embedding table, an idea of WeSR (wenet-e2e/wesr). Scores
are cosines. The blank is no token and has no embedding to be drawn to: it is a fixed score, so that
a soft token which resembles nothing counts as blank and stays free for the LM's own loss.

Must not know shards, steps or how the two losses are weighed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.bridge.projector import Soft
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

BLANK_COSINE = 0.5
SCALE = 2.0


class CtcLoss(NamedTuple):
    """nll: summed negative log-likelihood in nats, fp32. unserved: int64, rows whose text has more
    tokens than the audio has room for: they count 0."""

    nll: Tensor
    unserved: Tensor


def ctc_loss(lm: NanoChat, tok: Tokenizer, soft: Soft, texts: Sequence[str]) -> CtcLoss:
    """The loss of a batch of soft tokens (B, N, C) against their texts."""
    C = lm.config.n_embd
    table = torch.arange(lm.config.vocab_size, device=lm.device)
    rows = F.rms_norm(lm.embed(table[None])[0][0], (C,))  # (V, C)
    x = F.rms_norm(soft.rows, (C,)).to(rows.dtype)  # (B, N, C)
    cosine = (x @ rows.T).float() / C  # (B, N, V)
    cosine = F.pad(cosine, (0, 1), value=BLANK_COSINE)
    # Cosines of unlike rows spread by 1 / sqrt(C): scaled by it, the noise is alike at any width.
    log_p = F.log_softmax(SCALE * C**0.5 * cosine, -1).transpose(0, 1)  # (N, B, V + 1)
    ids = [tok.encode(text) for text in texts]
    # All of them may be empty: noise.
    targets = torch.tensor([i for row in ids for i in row], dtype=torch.long, device=lm.device)
    lengths = torch.tensor([len(row) for row in ids], device=lm.device)
    nll = F.ctc_loss(
        log_p, targets, soft.lengths, lengths,
        blank=lm.config.vocab_size, reduction="sum", zero_infinity=True,
    )  # fmt: skip
    # Equal neighbours need a blank between them.
    needed = [len(row) + sum(a == b for a, b in pairwise(row)) for row in ids]
    return CtcLoss(nll, (torch.tensor(needed, device=lm.device) > soft.lengths).sum())
