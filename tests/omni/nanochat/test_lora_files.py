"""Adapter files: what is saved is what is loaded, and every way a file can be wrong is told in a line.

.venv/bin/python -m pytest tests/omni/nanochat/test_lora_files.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nanochat_kit import adapters, inputs
from nanochat_reference import ruled_model
from torch import Tensor

from omni.errors import OmniError
from omni.nanochat.build import cast_matrices
from omni.nanochat.lora import load_lora, read_facts, save_lora

LM = ruled_model("E")
BASE = LM.fingerprint()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Adapters of `LM`, saved."""
    path = tmp_path / "lora-best.safetensors"
    save_lora(adapters(LM, dropout=0.1, targets=["mlp.c_proj", "attn.c_q"]), path, BASE)
    return path


def rewrite(
    file: Path,
    facts: Callable[[dict[str, Any]], object] = lambda facts: None,
    tensors: Callable[[dict[str, Tensor]], object] = lambda tensors: None,
) -> None:
    """Change what the file says of itself, or its tensors, in place."""
    content, said = safetensors.torch.load_file(file), dict(read_facts(file))
    facts(said)
    tensors(content)
    safetensors.torch.save_file(content, file, {"lora": json.dumps(said)})


def test_loaded_is_saved(file: Path) -> None:
    saved = adapters(LM, dropout=0.1, targets=["mlp.c_proj", "attn.c_q"])
    loaded = load_lora(file, LM)
    assert (loaded.rank, loaded.alpha, loaded.dropout) == (3, 6.0, 0.1)
    assert loaded.targets == ("attn.c_q", "mlp.c_proj")
    assert loaded.scale == 1.0
    assert not loaded.training
    mine, theirs = saved.state_dict(), loaded.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    rows, ve = inputs(LM, [9])
    want = ruled_model("E").wear(saved.eval()).forward_embeds(rows, ve, heard=True)
    assert torch.equal(ruled_model("E").wear(loaded).forward_embeds(rows, ve, heard=True), want)


def test_equal_weights_give_equal_bytes(file: Path) -> None:
    bytes_before = file.read_bytes()
    save_lora(load_lora(file, LM), file, BASE)
    assert file.read_bytes() == bytes_before
    assert set(safetensors.torch.load_file(file)) >= {"h.2.attn.c_q.A", "h.0.mlp.c_proj.B"}


def test_the_base_is_known_whatever_it_computes_in(file: Path) -> None:
    half = cast_matrices(ruled_model("E"), torch.bfloat16)
    kept = load_lora(file, half)
    assert {p.dtype for p in kept.parameters()} == {torch.float32}
    rounded = load_lora(file, half, half.fingerprint(), half.dtype)
    assert {p.dtype for p in rounded.parameters()} == {torch.bfloat16}
    rows, ve = inputs(half, [9])
    want = half.wear(kept).forward_embeds(rows, ve, heard=True)
    assert torch.equal(half.wear(rounded).forward_embeds(rows, ve, heard=True), want)


def test_a_file_of_halves_is_held_in_fp32(file: Path) -> None:
    rewrite(file, tensors=lambda t: t.update({k: v.half() for k, v in t.items()}))
    assert {p.dtype for p in load_lora(file, LM).parameters()} == {torch.float32}


def test_another_lms_adapters_are_refused(file: Path) -> None:
    other = ruled_model("E")
    other.lm_head.weight.data[3, 5] += 0.01
    with pytest.raises(OmniError) as caught:
        load_lora(file, other)
    said = f"adapters of an LM with hash {BASE[:12]}, this one has {other.fingerprint()[:12]}"
    assert str(caught.value) == f"{said} ({file}): give the LM that they were trained on"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({"h.1.attn.c_q.A": torch.zeros(2, 64)}),
         r"h\.1\.attn\.c_q\.A is \(2, 64\) of torch\.float32, expected \(3, 64\)"),
        (lambda t: t.pop("h.0.mlp.c_proj.B"),
         r"h\.0\.mlp\.c_proj\.B is missing, expected \(64, 3\)"),
        (lambda t: t.update({"h.3.attn.c_q.A": torch.zeros(3, 64)}),
         r"h\.3\.attn\.c_q\.A is \(3, 64\) of torch\.float32, which this LM has not"),
        (lambda t: t.update({"h.0.attn.c_q.A": torch.zeros(3, 64, dtype=torch.int64)}),
         r"h\.0\.attn\.c_q\.A is \(3, 64\) of torch\.int64, expected"),
        (lambda t: t["h.2.attn.c_q.B"].__setitem__((1, 2), float("nan")),
         r"h\.2\.attn\.c_q\.B holds numbers that are not finite"),
        (lambda t: t["h.2.attn.c_q.B"].__setitem__((1, 2), float("-inf")),
         r"h\.2\.attn\.c_q\.B holds numbers that are not finite"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(
    file: Path, change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    rewrite(file, tensors=change)
    with pytest.raises(OmniError, match=said) as caught:
        load_lora(file, LM)
    assert caught.value.where == str(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "`schema`"),
        ({"rank": 4}, r"is \(3, 64\) of torch\.float32, expected \(4, 64\)"),
        ({"rank": 1 << 40}, "`rank`"),
        ({"rank": "3"}, "`rank`: input should be a valid integer"),
        ({"alpha": -1.0}, "`alpha`"),
        ({"alpha": float("inf")}, "`alpha`"),
        ({"dropout": 1.0}, "`dropout`"),
        ({"targets": []}, "adapters on nothing"),
        ({"targets": ["attn.c_q", "lm_head"]}, "adapters on attn.c_q, lm_head"),
        ({"targets": ["attn.c_q"]}, "mlp.c_proj.* which this LM has not"),
        ({"base": "abc"}, "`base`"),
    ],
)
def test_a_header_that_is_not_sound(file: Path, change: dict[str, Any], said: str) -> None:
    rewrite(file, facts=lambda facts: facts.update(change))
    with pytest.raises(OmniError, match=said) as caught:
        load_lora(file, LM)
    assert str(file) in str(caught.value)


def test_no_file_or_one_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match=r"no lora-best\.safetensors \("):
        load_lora(tmp_path / "lora-best.safetensors", LM)
    other = tmp_path / "projector-best.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, other)
    with pytest.raises(OmniError, match=r"the file holds no adapters .*use a lora-"):
        load_lora(other, LM)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(0, 255))
def test_a_damaged_file_is_an_error_in_one_line_or_is_not_damaged(
    tmp_path_factory: pytest.TempPathFactory, share: float, byte: int
) -> None:
    """Cut off anywhere; and one byte anywhere in the header changed."""
    file = tmp_path_factory.mktemp("damaged") / "lora-last.safetensors"
    save_lora(adapters(LM), file, BASE)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * (len(whole) - 1))])
    with pytest.raises(OmniError, match=r"damaged safetensors|no adapters"):
        load_lora(file, LM)
    header = 8 + int.from_bytes(whole[:8], "little")
    at = int(share * (header - 1))
    file.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    said = str(file)
    try:
        load_lora(file, LM)
    except OmniError as error:
        said = str(error)
    assert str(file) in said
    assert "\n" not in said
