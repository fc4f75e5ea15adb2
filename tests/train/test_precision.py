"""Training against an LM in half precision: scaled gradients, and a run that is resumed in another.

.venv/bin/python -m pytest tests/train/test_precision.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from step_kit import gradients, make_trainee, pack
from training_kit import save_lm, speech, tiny_lm, write_split

import train.step
from omni import runs
from omni.errors import OmniError
from omni.nanochat.build import cast_matrices
from train import loop
from train.loop import train as run_training
from train.options import TrainOptions
from train.scaling import PATIENCE, LossScale
from train.step import Trainee, backward, train_step


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of two splits and a tiny LM."""
    root = tmp_path_factory.mktemp("parts")
    write_split(root / "shards", "train-x", speech(32))
    write_split(root / "shards", "dev-x", speech(6, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    return root


def options(parts: Path, **changes: Any) -> TrainOptions:
    base: dict[str, Any] = {
        "shards": (str(parts / "shards"),), "lm": str(parts / "lm"), "steps": 5, "warmup": 2,
        "batch_size": 8, "hidden": 32, "eval_every": 5, "save_every": 2, "decode_limit": 1,
        "buffer": 32, "wandb": "disabled", "device": "cpu",
    }  # fmt: skip
    return TrainOptions(**{**base, **changes})


def in_fp16(scale: float) -> Trainee:
    trainee = make_trainee()
    cast_matrices(trainee.lm, torch.float16)
    trainee.scale = LossScale(scale)
    return trainee


def test_scaled_gradients_of_fp16_are_those_of_fp32() -> None:
    want_from = make_trainee()
    backward(want_from, pack())
    want = gradients(want_from)
    errors = {}
    for scale in (2.0**-14, 2.0**8):  # so small a loss is what a large batch makes of it
        trainee = in_fp16(scale)
        backward(trainee, pack())
        errors[scale] = float((gradients(trainee) - want).norm() / want.norm())
    assert errors[2.0**8] < 0.02
    assert errors[2.0**-14] > 5 * errors[2.0**8]


def test_what_overflows_is_computed_again_with_half_the_scale() -> None:
    trainee, packed = in_fp16(2.0**24), pack()
    before = [p.detach().clone() for p in trainee.projector.parameters()]
    figures = train_step(trainee, packed, 1e-3)
    assert 1 <= trainee.scale.value < 2.0**24
    assert figures.grad_norm > 0
    assert all(torch.isfinite(p).all() for p in trainee.projector.parameters())
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainee.projector.parameters(), strict=True)
    )
    settled = in_fp16(trainee.scale.value)
    assert train_step(settled, packed, 1e-3) == figures  # nothing of the overflow is left


def test_a_gradient_that_no_scale_saves_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trainee = in_fp16(4.0)
    real, calls = train.step.backward, []

    def broken(trainee: Trainee, packed: Any) -> torch.Tensor:
        calls.append(trainee.scale.value)
        sums = real(trainee, packed)
        trainee.projector.row_head.bias.grad[0] = float("nan")
        return sums

    monkeypatch.setattr(train.step, "backward", broken)
    with pytest.raises(OmniError, match="gradient norm nan"):
        train_step(trainee, pack(), 1e-3)
    assert calls == [4.0, 2.0, 1.0]


def test_the_scale_grows_again_in_fp16_alone() -> None:
    scale = LossScale(8.0)
    for _ in range(PATIENCE):
        scale.passed(torch.float16)
    assert (scale.value, scale.good) == (16.0, 0)
    plain = LossScale.of(torch.float32)
    for _ in range(PATIENCE):
        plain.passed(torch.float32)
    assert plain == LossScale(1.0, 0)
    assert not plain.lower()


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_run_in_half_precision_resumes_exactly(
    name: str, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(parts, lm_dtype=name)
    run_training(chosen, tmp_path / "whole")
    log_step = loop._log_step

    def stop(session: Any, *rest: Any) -> None:
        log_step(session, *rest)
        if session.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_log_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run_training(chosen, tmp_path / "cut")
    monkeypatch.setattr(loop, "_log_step", log_step)
    run_training(chosen, tmp_path / "cut", resume=True)
    both = [(tmp_path / n / "projector-last.safetensors").read_bytes() for n in ("whole", "cut")]
    assert both[0] == both[1]
    long = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[name]
    assert runs.load_run(tmp_path / "cut").provenance["lm_dtype"] == long


def test_another_dtype_is_refused_or_recorded(parts: Path, tmp_path: Path) -> None:
    run_training(options(parts), tmp_path)
    other = options(parts, lm_dtype="bf16")
    with pytest.raises(OmniError, match=r"in fp32, this is bf16.*--lm-dtype fp32, or --allow"):
        run_training(other, tmp_path, resume=True)
    assert runs.load_run(tmp_path).provenance["lm_dtype"] == "torch.float32"
    run_training(options(parts, lm_dtype="bf16", allow_mixed=True), tmp_path, resume=True)
    provenance = runs.load_run(tmp_path).provenance
    assert provenance["lm_dtype"] == "torch.bfloat16"
    assert provenance["lm_dtypes_before"] == ["torch.float32"]


@pytest.mark.parametrize("begun", ["cuda", "mps", "xpu"])
def test_another_kind_of_device_is_refused_or_recorded(
    begun: str, parts: Path, tmp_path: Path
) -> None:
    run_training(options(parts), tmp_path)
    path = tmp_path / "provenance.json"
    written = json.loads(path.read_text())
    assert written["device"] == "cpu"
    path.write_text(json.dumps({**written, "device": begun}))
    with pytest.raises(
        OmniError, match=rf"begun on {begun}, this is cpu.*--device {begun}, or --al"
    ):
        run_training(options(parts), tmp_path, resume=True)
    assert json.loads(path.read_text())["device"] == begun
    run_training(options(parts, allow_mixed=True), tmp_path, resume=True)
    provenance = runs.load_run(tmp_path).provenance
    assert provenance["device"] == "cpu"
    assert provenance["devices_before"] == [begun]
    assert provenance["lm_dtypes_before"] == ["torch.float32"]


def test_a_run_older_than_the_record_of_its_device_goes_on(parts: Path, tmp_path: Path) -> None:
    run_training(options(parts), tmp_path)
    path = tmp_path / "provenance.json"
    written = json.loads(path.read_text())
    written_step = runs.load_state(tmp_path)["step"]
    del written["device"]
    path.write_text(json.dumps(written))
    run_training(options(parts), tmp_path, resume=True)
    assert "devices_before" not in json.loads(path.read_text())
    assert runs.load_state(tmp_path)["step"] == written_step
