"""Where the demo LM starts: as one that copies what it looks at, with heads that look one and two ids back.

Upstream starts output projections at zero. Then nothing an LM of some thousand steps does ever leads to an
option's letter: it stands two ids behind the option, and to look there, to take along what stands
there, and to say it are each worthless without the others. Must not know how the LM is trained.
"""

from dataclasses import replace

import torch

from omni.errors import OmniError
from omni.nanochat import NanoChat, random_init

COMMON = 3.0  # of every id's first channel, beside 0.8: what a head can turn to wherever it is
_PAIRS = 4  # the fastest pairs of channels, which tell one id from its neighbours
_SAID = 0.05  # an id's row of the read-out, against its row of the input
_TAKEN = 2.0  # the strength of what the first layer's heads take along


@torch.no_grad()
def start_as_copier(lm: NanoChat) -> None:
    """Every head writes what it reads; the read-out says what is written.

    The first layer's first two heads take the id before, and the one before that, to a place of their
    own in the stream; the second layer's first head looks for where the one is the other: from "=" behind
    an option said again to that option's letter.
    """
    w = dict(lm.named_parameters())
    wide, dim = lm.config.n_embd, lm.config.head_dim
    inputs = w["transformer.wte.weight"]
    inputs[:, 0] = COMMON
    w["lm_head.weight"].copy_(_SAID * inputs)[:, 0] = 0.0
    for i in range(lm.config.n_layer):
        layer = f"transformer.h.{i}.attn"
        w[f"{layer}.c_proj.weight"].copy_(w[f"{layer}.c_v.weight"].T)
    first, second = ([w[f"transformer.h.{i}.attn.c_{n}.weight"] for n in "qkv"] for i in (0, 1))
    out = w["transformer.h.0.attn.c_proj.weight"]
    rng = torch.Generator().manual_seed(5)
    taken = torch.linalg.qr(torch.randn(wide, dim, generator=rng))[0].T.contiguous()
    taken[:, 0] = 0.0
    places = (slice(wide - 2 * dim, wide - dim), slice(wide - dim, wide))
    for head, place in enumerate(places):
        mine = slice(head * dim, (head + 1) * dim)
        _look_back(lm, first[0][mine], first[1][mine], head + 1)
        first[2][mine] = taken
        out[:, mine] = 0.0
        out[place, mine] = _TAKEN * torch.eye(dim)
    second[0][:dim], second[1][:dim] = 0.0, 0.0
    second[0][:dim, places[0]] = torch.eye(dim)
    second[1][:dim, places[1]] = torch.eye(dim)


def _look_back(lm: NanoChat, q: torch.Tensor, k: torch.Tensor, back: int) -> None:
    """A head (D, C) looks `back` ids back, whatever stands there."""
    half = lm.config.head_dim // 2
    step = torch.atan2(lm.sin[1], lm.cos[1])[:_PAIRS]  # what one id turns each pair by
    q.zero_()
    k.zero_()
    q[:_PAIRS, 0], q[half : half + _PAIRS, 0] = (back * step).cos(), (back * step).sin()
    k[:_PAIRS, 0] = 1.0


@torch.no_grad()
def grown(lm: NanoChat, more: int, seed: int) -> NanoChat:
    """The LM with `more` layers on top, an even number, that start by copying what they look at.

    An LM that says a word has it in its last layer alone: to find that word's letter takes layers behind.
    Their first heads start by looking for where what is about to be said stands two ids back.
    """
    n, dim = lm.config.n_layer, lm.config.head_dim
    if more % 2:
        raise OmniError(f"{more} more layers would move the value embeddings", "--grow", "2 or 4")
    taller = random_init(replace(lm.config, n_layer=n + more), "E", seed)
    w, old = dict(taller.named_parameters()), dict(lm.named_parameters())
    for name, p in old.items():
        w[name].view(-1)[: p.numel()] = p.view(-1)  # lambdas are as many as layers
    w["resid_lambdas"][n:] = 1.0
    w["x0_lambdas"][n:] = 0.0
    taken = old["transformer.h.0.attn.c_v.weight"][dim : 2 * dim]
    for i in range(n, n + more):
        q, k, v, out = (
            w[f"transformer.h.{i}.attn.{m}.weight"] for m in ("c_q", "c_k", "c_v", "c_proj")
        )
        out.copy_(v.T)
        q[:dim], k[:dim] = taken, 0.0
        k[:dim, -dim:] = torch.eye(dim)
    return taller
