"""An auxiliary loss that pulls each soft token towards the embedding of a text token it holds.

CTC whose output matrix is the LM's own embedding table, an idea of WeSR (wenet-e2e/wesr). The
blank is bos, which no transcript holds. Both sides are normed, as the LM does at its splice.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer
from omni.projector import Soft


def ctc_loss(lm: NanoChat, tok: Tokenizer, soft: Soft, texts: Sequence[str]) -> Tensor:
    """Summed negative log-likelihood in nats, fp32; a text too long for its audio counts 0."""
    C = lm.config.n_embd
    table = torch.arange(lm.config.vocab_size, device=lm.device)
    rows = F.rms_norm(lm.embed(table[None])[0][0], (C,))  # (V, C)
    x = F.rms_norm(soft.rows, (C,)).to(rows.dtype)  # (B, N, C)
    # Both have RMS 1: the product is C times the cosine, and its square root a usable scale.
    log_p = F.log_softmax((x @ rows.T).float() / C**0.5, -1).transpose(0, 1)  # (N, B, V)
    ids = [tok.encode(text) for text in texts]
    targets = torch.tensor([i for row in ids for i in row], device=lm.device)
    lengths = torch.tensor([len(row) for row in ids], device=lm.device)
    return F.ctc_loss(
        log_p, targets, soft.lengths, lengths,
        blank=tok.special("bos"), reduction="sum", zero_infinity=True,
    )  # fmt: skip
