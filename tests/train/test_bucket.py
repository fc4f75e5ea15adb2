"""Batches of few shapes, and what is compiled for them: the same gradients, and few compilations.

.venv/bin/python -m pytest tests/train/test_bucket.py
"""

from typing import Any

import pytest
import torch
from step_kit import gradients, make_trainee, pack
from torch._dynamo.testing import CompileCounterWithBackend
from training_kit import tiny_lm

from omni.bridge.prompt import row_limit
from train import step
from train.step import Trainee, backward


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """(frames of a batch, positions of its rows) that a step computes with."""
    seen: set[tuple[int, int]] = set()
    build = step.splice

    def built(lm: Any, soft: Any, *args: Any) -> Any:
        batch = build(lm, soft, *args)
        seen.add((soft.rows.shape[1] * 4, batch.rows.shape[1]))
        return batch

    monkeypatch.setattr(step, "splice", built)
    return seen


def bucketed(bucket: int) -> Trainee:
    trainee = make_trainee()
    trainee.bucket = bucket
    return trainee


@pytest.mark.parametrize("bucket", [4, 16, 64])
def test_a_bucket_changes_no_gradient_and_leaves_few_shapes(
    bucket: int, shapes: set[tuple[int, int]]
) -> None:
    for n in range(1, 8):
        plain, padded = make_trainee(), bucketed(bucket)
        sums = backward(plain, pack(n=n))
        shapes.clear()
        own = backward(padded, pack(n=n))
        torch.testing.assert_close(own[:5], sums[:5])
        torch.testing.assert_close(gradients(padded), gradients(plain), rtol=1e-4, atol=1e-7)
        ((frames, positions),) = shapes
        assert frames % bucket == 0
        assert positions % (bucket // 4) == 0
        assert own[5] == frames * n  # padding is told as it is


def test_rows_are_padded_as_far_as_the_lm_reaches(shapes: set[tuple[int, int]]) -> None:
    trainee = bucketed(3000)
    trainee.lm = tiny_lm(sequence_len=16)  # its rows end at 160 positions
    backward(trainee, pack())
    ((frames, positions),) = shapes
    assert frames == 3000
    assert positions == row_limit(trainee.lm)


@pytest.mark.slow
def test_compiled_for_any_shape_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer and the projector compile for the first batch, and at most once more for others."""
    counter = CompileCounterWithBackend("aot_eager")
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: real(f, backend=counter, **how))
    torch._dynamo.reset()
    compiled, plain = bucketed(16), bucketed(16)
    compiled.compile()
    counts = []
    for n in (7, 3, 5, 2, 6, 4):
        backward(compiled, pack(n=n))
        counts.append(counter.frame_count)
        backward(plain, pack(n=n))
        torch.testing.assert_close(gradients(compiled), gradients(plain), rtol=1e-4, atol=1e-6)
    parts = len(compiled.lm.transformer["h"]) + 1
    assert 0 < counts[0] <= 2 * parts
    assert counts[-1] <= 2 * parts
    assert counts[-1] == counts[2]  # nothing new for later shapes
