"""Training on a card: a step near the CPU's, two ranks as one, and the line when memory runs out.

.venv/bin/python -m pytest -m gpu tests/gpu/test_training.py
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ranks_kit import train_ranks
from step_kit import gradients, make_trainee, pack
from training_kit import save_lm, speech, tiny_lm, write_split

from cli.train_projector import main
from omni import runs
from omni.nanochat.build import cast_matrices
from train import loop
from train.step import Trainee, backward, make_optimizer, train_step


def trainee_on(device: str, dtype: torch.dtype) -> Trainee:
    trainee = make_trainee(4)
    trainee.ctc = 0.5
    trainee.lm = cast_matrices(trainee.lm, dtype).to(device)
    trainee.projector = trainee.projector.to(device)
    trainee.optimizer = make_optimizer(trainee.projector, 1e-3)
    return trainee


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_near_the_cpus(device: str, dtype: torch.dtype) -> None:
    """The projector is under autocast on a card: what bfloat16 rounds is the tolerance."""
    here, cpu = trainee_on(device, dtype), trainee_on("cpu", torch.float32)
    packed = pack()._replace(texts=["ab"] * 7)  # short enough for CTC
    sums = [backward(t, packed).cpu() for t in (here, cpu)]
    torch.testing.assert_close(*sums, rtol=2e-2, atol=1.0)
    a, b = (gradients(t).float().cpu() for t in (here, cpu))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.98
    figures = [train_step(t, packed, 1e-3) for t in (here, cpu)]
    assert figures[0].loss == pytest.approx(figures[1].loss, rel=2e-2)
    assert figures[0].n_tokens == figures[1].n_tokens
    weights = [t.projector.row_head.weight.detach().float().cpu() for t in (here, cpu)]
    torch.testing.assert_close(*weights, rtol=0, atol=3e-3)  # of one step of 1e-3 at most


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_split(root / "shards", "train-x", speech(32))
    write_split(root / "shards", "dev-x", speech(9, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    return root


def arguments(parts: Path, runs_: Path, device: str, *more: str) -> list[str]:
    return [
        "--shards", str(parts / "shards"), "--lm", str(parts / "lm"), "--steps", "4", "--hidden",
        "32", "--batch-size", "12", "--decode-limit", "2", "--wandb", "disabled", "--runs",
        str(runs_), "--run", "r", "--device", device, *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_two_ranks_train_as_one(parts: Path, tmp_path: Path, two_devices: tuple[str, str]) -> None:
    """NCCL between two cards; each rank takes its own by its local number."""
    kind = two_devices[0].partition(":")[0]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(arguments(parts, one, two_devices[0])) == 0
    ends = train_ranks([arguments(parts, two, kind)] * 2)
    assert [end.status for end in ends] == [0, 0], ends
    metrics = [runs.load_run(at / "r").metrics() for at in (one, two)]
    losses = [[m["loss"] for m in lines if "loss" in m] for lines in metrics]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2 if kind == "cuda" else 1e-4)
    ces = [lines[-1]["eval"]["dev-x"]["ce"] for lines in metrics]
    assert ces[1] == pytest.approx(ces[0], rel=1e-2)


@contextlib.contextmanager
def little_memory(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A card of which this process may take hardly more than it has; a CPU whose step takes all."""
    if device == "cpu":
        monkeypatch.setattr(loop, "train_step", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
        yield
        return
    torch.cuda.empty_cache()
    taken, all_ = torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((taken + (4 << 20)) / all_, 0)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


def test_memory_that_runs_out_is_one_line_with_what_halves_it(
    parts: Path,
    tmp_path: Path,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with little_memory(device, monkeypatch):
        assert main(arguments(parts, tmp_path, device, "--hidden", "4096")) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert line.startswith("error: out of memory")
    assert "halves it" in line
