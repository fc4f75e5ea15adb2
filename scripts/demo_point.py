"""The demo LM's step from a word to its letter: one head of its last layers is fitted, not trained.

An LM that answers a question with one of its options holds the option where the answer begins, and holds
each option where its letter stands. What is missing is a head that turns from the one to the other. It
is two linear maps, which least squares find from some hundred rows. Must not know how the LM is trained.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from demo_rows import Row, pad
from torch import Tensor

from omni.nanochat import NanoChat
from omni.nanochat.model import norm
from omni.nanochat.tokenizer import Tokenizer

_SLOW = 6  # pairs of channels from here on tell what, not where: they turn little over a row
_RIDGE = 1e-2
_FLAG = 0.6  # of a code: whether it is a letter's at all
_SAYS = 1.0  # of a letter that is turned to, against the stream's norm


@torch.no_grad()
def point_at_letters(
    lm: NanoChat, tok: Tokenizer, layer: int, rows: Sequence[Row], answers: Sequence[dict[str, str]]
) -> None:
    """Fit the first head of a layer.

    Args:
        rows: of one question with four options each, answered by its letter.
        answers: of each row, its options and their letters.
    """
    dim = lm.config.head_dim
    codes = _codes(lm.config.vocab_size, dim)
    asked: list[Tensor] = []
    asks: list[Tensor] = []
    offered: list[Tensor] = []
    offers: list[Tensor] = []
    letters: list[int] = []
    sizes: list[Tensor] = []
    (equals, _), no_letter = tok.encode("=A"), _flag(dim)
    for row, options in zip(rows, answers, strict=True):
        ids, targets = pad([row])
        stream = _stream(lm, ids, layer)
        at = int((targets[0] != -1).int().argmax())
        by_letter = {tok.encode(letter)[0]: option for option, letter in options.items()}
        asked.append(stream[at])
        asks.append(codes[tok.encode(" " + by_letter[int(targets[0, at])])[-1]])
        sizes.append(lm.hidden_states(*lm.embed(ids))[-1][0, at].norm())
        before = 0
        for place, one in enumerate(ids[0, : at + 1].tolist()):
            offered.append(stream[place])
            is_letter = before == equals and one in by_letter
            offers.append(codes[tok.encode(" " + by_letter[one])[-1]] if is_letter else -no_letter)
            letters.append(one if is_letter else 0)
            before = one
    w = dict(lm.named_parameters())
    at_layer = f"transformer.h.{layer}.attn"
    w[f"{at_layer}.c_q.weight"][:dim] = _fit(torch.stack(asked), torch.stack(asks))
    w[f"{at_layer}.c_k.weight"][:dim] = _fit(torch.stack(offered), torch.stack(offers))
    kinds = sorted(set(letters) - {0})
    there = torch.tensor(letters) > 0
    which = F.one_hot(torch.tensor([kinds.index(i) for i in letters if i]), dim).float()
    w[f"{at_layer}.c_v.weight"][:dim] = _fit(torch.stack(offered)[there], which)
    out = w[f"{at_layer}.c_proj.weight"][:, :dim]
    out.zero_()
    heads = w["lm_head.weight"][kinds]
    away = heads - heads.mean(0)
    out[:, : len(kinds)] = _SAYS * torch.stack(sizes).mean() * F.normalize(away, dim=1).T
    gate = w.get(f"{at_layer}.ve_gate.weight")
    if gate is not None:
        w[f"value_embeds.{layer}.weight"][:, :dim] = 0.0


def _codes(n: int, dim: int) -> Tensor:
    """A random direction for each id, in the channels that turn slowly."""
    codes = torch.randn(n, dim, generator=torch.Generator().manual_seed(3))
    half = dim // 2
    codes[:, :_SLOW] = codes[:, half : half + _SLOW] = 0.0
    codes[:, dim - 2 :] = codes[:, half - 2 : half] = 0.0
    return (1 - _FLAG**2) ** 0.5 * F.normalize(codes, dim=1) + _flag(dim)


def _flag(dim: int) -> Tensor:
    """What all letters' codes have in common."""
    flag = torch.zeros(dim)
    flag[dim - 1] = _FLAG
    return flag


def _stream(lm: NanoChat, ids: Tensor, layer: int) -> Tensor:
    """What the attention of a layer reads, (T, C), of one row of ids (1, T)."""
    states = lm.hidden_states(*lm.embed(ids))
    x, x0 = states[layer], states[0]
    return norm(lm.resid_lambdas[layer] * x + lm.x0_lambdas[layer] * x0)[0]


def _fit(x: Tensor, y: Tensor) -> Tensor:
    """The matrix (D, C) that takes rows of x (N, C) to rows of y (N, D), by ridge regression."""
    gram = x.T @ x / len(x) + _RIDGE * torch.eye(x.shape[1])
    return torch.linalg.solve(gram, x.T @ y / len(x)).T
