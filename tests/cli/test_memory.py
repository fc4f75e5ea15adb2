"""Memory that runs out: told by what it is, whoever lacked it, with the option that takes less."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_kit import save_lm, speech, tiny_lm, write_split

from cli._common import run
from omni.errors import OmniError, is_out_of_memory
from train import loop, start
from train.options import TrainOptions

HUGE = 1 << 60  # bytes; no machine has them


def on_a_cpu() -> None:
    torch.empty(HUGE, dtype=torch.uint8)


def on_a_cpu_while_computing() -> None:
    torch.zeros(1).expand(HUGE // 4).clone()


def in_numpy() -> None:
    np.empty(HUGE, dtype=np.uint8)


def in_python() -> None:
    bytes(HUGE)


def on_a_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def in_pinned_memory() -> None:
    raise torch.AcceleratorError(
        "CUDA error: out of memory\nCUDA kernel errors might be reported …"
    )


def in_a_library() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


WAYS = [
    *(on_a_cpu, on_a_cpu_while_computing, in_numpy, in_python, on_a_device),
    *(in_pinned_memory, in_a_library),
]


@pytest.mark.parametrize("way", WAYS)
def test_memory_that_runs_out_is_no_internal_error(
    way: object, capsys: pytest.CaptureFixture[str]
) -> None:
    def parser() -> argparse.ArgumentParser:
        made = argparse.ArgumentParser()
        made.add_argument("--batch-size", type=int, default=32)
        return made

    assert run(parser, lambda args: way(), []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory")
    assert line.endswith(": --batch-size 16 takes about half of it")
    assert run(parser, lambda args: way(), ["--batch-size", "1"]) == 1
    assert capsys.readouterr().err.endswith(": take less at a time: smaller batches\n")


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError("out of memory"), ValueError("DefaultCPUAllocator"), OSError(), KeyError()),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("way", WAYS)
def test_a_projector_that_does_not_fit_names_what_makes_it_smaller(
    way: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path / "shards", "train-x", speech(12))
    write_split(tmp_path / "shards", "dev-x", speech(4, 5, 500, "bob"), role="eval")
    save_lm(tmp_path / "lm", tiny_lm())
    options = TrainOptions(
        shards=(str(tmp_path / "shards"),), lm=str(tmp_path / "lm"), steps=1, batch_size=4,
        decode_limit=0, wandb="disabled", device="cpu", hidden=16,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(start, "build_projector", lambda *_, **__: way())
        with pytest.raises(OmniError, match=r"^out of memory .*projector.*: --hidden 8 halves it$"):
            loop.train(options, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with monkeypatch.context() as patch:
        patch.setattr(start, "read_sides", lambda *_, **__: way())
        with pytest.raises(OmniError, match=r"utterances to evaluate.*--eval-limit 128 halves it$"):
            loop.train(options, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", lambda *_, **__: way())
        small = replace(options, micro_batch_size=2)
        for given, size in ((options, 32), (small, 2)):
            half = rf"evaluation of {size} .*: --micro-batch-size {size // 2} halves it$"
            with pytest.raises(OmniError, match=half):
                loop.train(given, tmp_path / f"run-{size}")
    monkeypatch.setattr(loop, "train_step", lambda *_: way())
    with pytest.raises(OmniError, match=r"micro-batch of 4.*--micro-batch-size 2 halves it"):
        loop.train(options, tmp_path / "run")
