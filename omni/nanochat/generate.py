"""Decode text after a prefill of soft tokens: greedy or sampled, rows of unequal length together.

Must not know what the rows mean or how they were laid out (prompt.py).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from omni.errors import OmniError
from omni.nanochat.model import NanoChat


@torch.inference_mode()
def generate(
    lm: NanoChat,
    rows: Tensor,
    ve_rows: Tensor | None,
    lengths: Tensor,
    stop_ids: set[int],
    max_new: Sequence[int] | int,
    temperature: float = 0.0,
    top_k: int | None = None,
    seed: int = 0,
    more: Callable[[int, list[int]], bool] | None = None,
    heard: Tensor | bool = False,
) -> list[list[int]]:
    """Token ids that follow each row, up to a stop id (left out) or the row's cap.

    Every row decodes as if it were alone: from its own end, with a generator of its own.

    Args:
        rows: (B, T, C) embedding rows, padded on the right.
        ve_rows: (B, T, n_ve, kv_dim) or None (zeros).
        lengths: (B,) long, real positions of each row, at least 1.
        stop_ids: ids that end a row.
        max_new: cap on new tokens, one for all or one for each row.
        temperature: 0 takes the best token; else logits are divided by it before sampling.
        top_k: sample among the k best only.
        seed: of the sampling; all rows' generators have the same.
        more: asked of a row (its index, its ids) at its cap and after each further token: whether
            it may go on, as far as the rotary table reaches.
        heard: which rows hold audio, as `NanoChat.forward_embeds` takes it: adapters act in their
            prompt and in what they say.

    Returns:
        One list of ids for each row.

    Raises:
        OmniError: a row and its cap go beyond the rotary table.
    """
    B, T, _ = rows.shape
    caps = [max_new] * B if isinstance(max_new, int) else list(max_new)
    _check(lm, lengths, caps)
    hearing = heard.tolist() if isinstance(heard, Tensor) else [heard] * B
    room = (lm.cos.size(0) - lengths).tolist()
    rngs = [torch.Generator().manual_seed(seed) for _ in range(B)]
    out: list[list[int]] = [[] for _ in range(B)]
    active = [i for i in range(B) if caps[i] > 0]
    if not active:
        return out
    rows, ve_rows, lengths = _only(active, rows, ve_rows, lengths)
    cache = lm.new_cache(len(active), T + max(caps))
    last = torch.arange(T, device=rows.device) == (lengths[:, None] - 1)  # (B, T): one a row
    now = _of_rows(hearing, active, rows.device)
    logits = lm.forward_embeds(rows, ve_rows, last, cache, lengths, now)
    while True:
        chosen = _choose(logits, [rngs[i] for i in active], temperature, top_k)
        going = []
        for at, (row, token) in enumerate(zip(active, chosen, strict=True)):
            if token not in stop_ids:
                out[row].append(token)
                n = len(out[row])
                if n < caps[row] or (more and n < room[row] and more(row, out[row])):
                    going.append(at)
        if not going:
            return out
        if len(going) < len(active):
            # Finished rows leave the batch: a long utterance doesn't make short ones compute on.
            cache.select(torch.tensor(going, device=rows.device))
            active, chosen = [active[at] for at in going], [chosen[at] for at in going]
            now = _of_rows(hearing, active, rows.device)
        cache.reserve(1)
        ids = torch.tensor(chosen, device=rows.device)[:, None]
        logits = lm.forward_embeds(*lm.embed(ids), cache=cache, heard=now)[:, -1]


def _check(lm: NanoChat, lengths: Tensor, caps: list[int]) -> None:
    if len(caps) != len(lengths) or bool((lengths < 1).any()):
        raise OmniError("each row needs a length of at least 1 and a cap on new tokens")
    longest = max(int(n) + cap for n, cap in zip(lengths.tolist(), caps, strict=True))
    if longest > lm.cos.size(0):
        raise OmniError(
            f"a row and its new tokens take {longest} positions; the rotary table ends at "
            f"{lm.cos.size(0)}",
            where=f"sequence_len {lm.config.sequence_len}",
            mend="use shorter audio, fewer new tokens, or a model with a longer sequence_len",
        )


def _only(
    active: list[int], rows: Tensor, ve_rows: Tensor | None, lengths: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The rows that have anything to say."""
    if len(active) == rows.size(0):
        return rows, ve_rows, lengths
    keep = torch.tensor(active, device=rows.device)
    return rows[keep], None if ve_rows is None else ve_rows[keep], lengths[keep]


def _of_rows(hearing: list[bool], active: list[int], device: torch.device) -> Tensor | bool:
    """Which of the active rows hold audio; one answer where all agree, which costs the LM less."""
    mine = [hearing[i] for i in active]
    return mine[0] if len(set(mine)) == 1 else torch.tensor(mine, device=device)


def _choose(
    logits: Tensor, rngs: list[torch.Generator], temperature: float, top_k: int | None
) -> list[int]:
    """The next id of each row. logits: (B, vocab) fp32."""
    if temperature <= 0:
        return logits.argmax(-1).tolist()
    if top_k is not None and 0 < top_k < logits.size(-1):
        worst = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < worst, float("-inf"))
    # Drawn on the CPU, so that a seed gives one text on every device.
    probs = torch.softmax(logits / temperature, dim=-1).cpu()
    draws = [torch.multinomial(p, 1, generator=rng) for p, rng in zip(probs, rngs, strict=True)]
    return [int(draw) for draw in draws]
