"""--lm-dtype: what the LM computes in, by option and card; and an LM that fp16 can't hold.

.venv/bin/python -m pytest tests/omni/nanochat/test_dtype.py
"""

from pathlib import Path

import pytest
import torch
from nanochat_kit import write

from omni.device import pick_dtype
from omni.errors import OmniError
from omni.nanochat import load_checkpoint
from omni.nanochat.layers import MLP


@pytest.mark.parametrize(
    ("own", "want"), [(True, torch.bfloat16), (False, torch.float16)], ids=["Ampere", "Turing"]
)
def test_auto_takes_what_the_card_has(
    own: bool, want: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return own or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_dtype("auto", "cuda:1") == want
    assert pick_dtype("auto", "cpu") == torch.float32
    assert pick_dtype("fp32", "cuda") == torch.float32
    with pytest.raises(OmniError, match=r"no such dtype.*use one of auto, bf16, fp16, fp32$"):
        pick_dtype("fp8", "cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_lm_in_half_precision_says_nearly_the_same_under_the_same_hash(
    dtype: torch.dtype,
) -> None:
    exact = load_checkpoint("demo")[0]
    half = load_checkpoint("demo", dtype=dtype)[0]
    assert half.dtype == dtype
    assert half.fingerprint() == exact.fingerprint()
    assert half.exact_hash() != exact.exact_hash()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        got, want = half(ids), exact(ids)
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < {torch.float16: 0.05, torch.bfloat16: 0.5}[dtype]


def test_a_square_beyond_fp16_is_its_largest() -> None:
    mlp = MLP(2).half()
    with torch.no_grad():
        mlp.c_fc.weight.fill_(300.0)
        mlp.c_proj.weight[0, 0] = 1.0
        x = torch.ones(1, 1, 2, dtype=torch.float16)
        assert mlp(x)[0, 0, 0] == 65024  # 255 ** 2, as fp16 rounds it
    x.requires_grad_()
    mlp(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_an_lm_that_fp16_cannot_hold_is_refused(tmp_path: Path) -> None:
    write(tmp_path, era="E")
    state = torch.load(next(tmp_path.glob("model_*.pt")), weights_only=True)
    load_checkpoint(tmp_path, dtype=torch.float16)
    for factor in (1e4, 1e7):  # a square of the MLP; the weight itself
        big = {k: v * factor if "h.1.mlp.c_fc" in k else v for k, v in state.items()}
        torch.save(big, next(tmp_path.glob("model_*.pt")))
        load_checkpoint(tmp_path, dtype=torch.bfloat16)
        with pytest.raises(OmniError, match=r"fp16 can't hold.*--lm-dtype fp32"):
            load_checkpoint(tmp_path, dtype=torch.float16)
