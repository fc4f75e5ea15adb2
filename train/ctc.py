"""An auxiliary loss that pulls each soft token towards the embedding of a text token it holds.

CTC whose output matrix is the LM's own embedding table, an idea of WeSR (wenet-e2e/wesr). Scores
are cosines. The blank is no token and has no embedding to be drawn to: it is a fixed score, so that
a soft token which resembles nothing counts as blank and stays free for the LM's own loss.

Must not know shards, steps or how the two losses are weighed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.nanochat.model import NanoChat, Table

BLANK_COSINE = 0.5
SCALE = 2.0


def token_directions(lm: NanoChat) -> Tensor:
    """(V, C), in the LM's dtype: each token's embedding at unit RMS. The LM is frozen, so a run
    needs them once."""
    ids = torch.arange(lm.config.vocab_size, device=lm.device)
    rows = cast(Table, lm.transformer["wte"])(ids).detach()  # not lm.embed: no value tables
    return F.rms_norm(rows, (lm.config.n_embd,))


def ctc_loss(
    directions: Tensor, soft_rows: Tensor, n_soft: Sequence[int], ids: Sequence[Sequence[int]]
) -> Tensor:
    """The loss of a batch of soft tokens against their texts.

    Args:
        directions: of `token_directions`.
        soft_rows: (B, N, C).
        n_soft: soft tokens of each utterance. On the host, as ctc_loss wants them: given on a
            device it would fetch them, and wait.
        ids: tokens of each text; one with no room (`unserved`) counts 0.

    Returns:
        Summed negative log-likelihood in nats, fp32.
    """
    V, C = directions.shape
    x = F.rms_norm(soft_rows, (C,)).to(directions.dtype)  # (B, N, C)
    cosine = (x @ directions.T).float() / C  # (B, N, V)
    cosine = F.pad(cosine, (0, 1), value=BLANK_COSINE)
    # Cosines of unlike rows spread by 1 / sqrt(C): scaled by it, the noise is alike at any width.
    log_p = F.log_softmax(SCALE * C**0.5 * cosine, -1).transpose(0, 1)  # (N, B, V + 1)
    # All of them may be empty: noise.
    targets = torch.tensor([i for row in ids for i in row], dtype=torch.long)
    return F.ctc_loss(
        log_p, targets.to(directions.device, non_blocking=True),
        torch.tensor(n_soft), torch.tensor([len(row) for row in ids]),
        blank=V, reduction="sum", zero_infinity=True,
    )  # fmt: skip


def unserved(ids: Sequence[Sequence[int]], n_soft: Sequence[int]) -> int:
    """Rows whose text has more tokens than the audio has room for: the loss counts them as 0."""
    # Equal neighbours need a blank between them.
    needed = [len(row) + sum(a == b for a, b in pairwise(row)) for row in ids]
    return sum(n > room for n, room in zip(needed, n_soft, strict=True))
