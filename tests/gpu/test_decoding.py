"""Decoding on a card: with the cache what a full pass for every token gives.

.venv/bin/python -m pytest -m gpu tests/gpu/test_decoding.py
"""

import pytest
import torch
from training_kit import tiny_lm

from omni.nanochat.eras import ERAS
from omni.nanochat.generate import generate


@pytest.mark.parametrize("era", sorted(ERAS))
def test_greedy_with_the_cache_is_the_full_pass(device: str, era: str) -> None:
    """In float32, where no tie is broken by rounding; rows of different lengths in one batch."""
    lm = tiny_lm(era).to(device)
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 4, 7]
    rows = torch.randn(3, 9, 64, generator=generator).to(device)
    ve = None
    if lm.n_ve:
        ve = torch.randn(3, 9, lm.n_ve, lm.kv_dim, generator=generator).to(device)
    got = generate(lm, rows, ve, torch.tensor(lengths, device=device), set(), 10)
    for i, n in enumerate(lengths):
        own, own_ve = rows[i : i + 1, :n], None if ve is None else ve[i : i + 1, :n]
        want: list[int] = []
        for _ in range(10):
            with torch.inference_mode():
                token = int(lm.forward_embeds(own, own_ve)[0, -1].argmax())
                more, more_ve = lm.embed(torch.tensor([[token]], device=device))
            want.append(token)
            own = torch.cat([own, more], 1)
            own_ve = None if own_ve is None or more_ve is None else torch.cat([own_ve, more_ve], 1)
        assert got[i] == want
