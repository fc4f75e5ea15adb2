"""How soon a card gives the first token, and how many a second after it.

Random weights; rows as long as 12.7 s of speech. Must not know encoders or shards.
"""

from collections.abc import Iterator

import torch

from bench.card.rows import Budget, Row, seconds
from bench.card.training import random_lm
from omni.errors import brief
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.generate import generate

PART = "Decoding"
PROMPT, NEW = 165, 64  # soft tokens and template, then tokens


def measure(
    device: torch.device,
    budget: Budget,
    configs: dict[str, NanoChatConfig],
    batches: tuple[int, ...] = (1, 8),
) -> Iterator[Row]:
    """Time to the first token, and tokens a second of all rows together."""
    share = max(budget.left, 0) / (2 * len(configs) * len(batches))
    for name, config in configs.items():
        lm = random_lm(config, device)
        for batch in batches:
            rows = torch.randn(batch, PROMPT, config.n_embd, device=device)
            lengths = torch.full((batch,), PROMPT, device=device)
            what = f"{name}, {batch} at once"

            def decode(new: int, rows: torch.Tensor = rows, n: torch.Tensor = lengths) -> object:
                return generate(lm, rows, None, n, set(), new)  # noqa: B023  used at once

            try:
                first = seconds(lambda: decode(1), device, Budget.of(share))
                all_ = seconds(lambda: decode(NEW), device, Budget.of(share))
            except Exception as error:  # a row that says why
                yield Row(PART, what, None, "s", brief(error))
                continue
            yield Row(
                PART, f"{what}, first token", 1000 * first, "ms", f"{PROMPT} positions before"
            )
            rate = batch * (NEW - 1) / max(all_ - first, 1e-9)
            yield Row(PART, f"{what}, tokens", rate, "1/s", "with the cache, greedy")
