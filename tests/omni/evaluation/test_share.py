"""An evaluation that is shared has the figures of one that is not.

.venv/bin/python -m pytest tests/omni/evaluation/test_share.py
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from share_kit import shared
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.projector import build_projector
from omni.bridge.turns import choose_template
from omni.evaluation.evaluate import evaluate, keep_own
from omni.evaluation.figures import Figures
from omni.evaluation.share import Share


@pytest.mark.parametrize(("world", "batch"), [(2, 4), (3, 5), (4, 32)])
def test_figures_are_those_of_one_process(world: int, batch: int) -> None:
    """With more processes than batches too; each holds only the features that it looks at."""
    lm, tok, samples = tiny_lm(), chat_tokenizer(), speech(19)
    torch.manual_seed(0)
    projector = build_projector(d_in=16, n_embd=64, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32)
    projector.eval()
    template = choose_template({"kind": "sft"})

    def figures(share: Share) -> Figures:
        held = keep_own(samples, batch, 7, share) if share.world > 1 else samples
        return evaluate(lm, tok, projector, held, template, batch, decode_limit=7, share=share)

    alone = figures(Share())
    together = shared(world, figures)
    for mine in together:
        for name in ("ce_mean", "gap_mean"):  # the mean is added up in another order
            assert mine.pop(name) == pytest.approx(alone[name], abs=1e-4)
    without = {k: v for k, v in alone.items() if k not in ("ce_mean", "gap_mean")}
    assert all(mine == without for mine in together)


def test_what_is_not_looked_at_takes_no_memory() -> None:
    samples = speech(40)
    held = keep_own(samples, 4, 0, Share(1, 4))
    there = [s for s in held if s.features.strides != (0, 0)]
    assert 8 <= len(there) < 30
    assert sorted((s.key, s.features.shape) for s in held) == sorted(
        (s.key, s.features.shape) for s in samples
    )


@given(st.integers(0, 70), st.integers(1, 9), st.integers(1, 8))
def test_every_place_is_dealt_once_in_whole_batches(n: int, batch: int, world: int) -> None:
    dealt = [Share(rank, world).batches(n, batch) for rank in range(world)]
    assert sorted(i for own in dealt for at in own for i in at) == list(range(n))
    alone = Share().batches(n, batch)
    assert all(at in alone for own in dealt for at in own)
