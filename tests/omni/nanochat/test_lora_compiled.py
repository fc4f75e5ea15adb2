"""Adapters in compiled layers: the same numbers, the same dropout when recomputed, and no layer left out.

.venv/bin/python -m pytest -m slow tests/omni/nanochat/test_lora_compiled.py
"""

import shutil
from functools import partial

import pytest
import torch
from nanochat_kit import adapters, inputs
from nanochat_reference import ruled_model

HEARD = torch.tensor([True, False, True])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_give_the_same(checkpointing: bool) -> None:
    found = []
    for compiled in (False, True):
        lm = ruled_model("E", n_layer=4, window_pattern="SL", sequence_len=12)
        lm.activation_checkpointing = checkpointing
        lora = adapters(lm).train()
        lm.wear(lora)
        if compiled:
            lm.compile_layers()
        out = []
        for heard in (False, True, HEARD):
            for length in (30, 21):
                rows, ve = inputs(lm, [length] * 3)
                logits = lm.forward_embeds(rows.requires_grad_(), ve, heard=heard)
                logits.square().mean().backward()
                out += [logits.detach(), rows.grad]
        found.append([*out, *(p.grad for p in lora.parameters())])
    for eager, other in zip(*found, strict=True):
        assert torch.allclose(eager, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch._dynamo.config.patch(recompile_limit=8)
def test_every_kind_of_layer_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """More kinds than torch allows by itself; beyond that it would go on uncompiled."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    lm = ruled_model("E", n_layer=2, sequence_len=12).compile_layers()
    lm.wear(adapters(lm, dropout=0.1))
    for length in (9, 11, 30, 21):  # within the window, and beyond it
        for heard in (False, True, HEARD, ~HEARD):
            rows, ve = inputs(lm, [length] * 3)
            lm.forward_embeds(rows.requires_grad_(), ve, heard=heard).mean().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2 * 2 * 3
    assert not torch._dynamo.utils.counters["unimplemented"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here")
def test_compiled_dropout_is_the_same_when_recomputed() -> None:
    found = []
    for checkpointing in (False, True, False):
        lm = ruled_model("E", n_layer=2).compile_layers()
        lm.activation_checkpointing = checkpointing
        lora = adapters(lm, dropout=0.3).train()
        rows, ve = inputs(lm, [30, 30, 30])
        torch.manual_seed(5)
        logits = lm.wear(lora).forward_embeds(rows.requires_grad_(), ve, heard=HEARD)
        logits.square().mean().backward()
        found.append([logits.detach(), rows.grad, *(p.grad for p in lora.parameters())])
    for plain, recomputed, again in zip(*found, strict=True):
        assert torch.equal(plain, again)
        assert torch.allclose(plain, recomputed, rtol=1e-4, atol=1e-6)
