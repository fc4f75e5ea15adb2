"""A run that stops between any two of its files goes on as if it had not; one that lost its state is
not written over."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_kit import save_lm, speech, tiny_lm, write_split

from omni import runs
from omni.errors import OmniError
from train.loop import train
from train.options import TrainOptions


class _StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Shards, an LM, and a whole run with checkpoints after steps 2, 4 and 5."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("parts")
    write_split(root / "shards", "train-x", speech(24))
    write_split(root / "shards", "dev-x", speech(4, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    train(options(root), root / "whole")
    yield root
    torch.set_num_threads(threads)


def options(root: Path) -> TrainOptions:
    return TrainOptions(
        shards=(str(root / "shards"),), lm=str(root / "lm"), steps=5, batch_size=8, hidden=16,
        eval_every=2, decode_limit=0, wandb="disabled", device="cpu", warmup=1,
    )  # fmt: skip


def content(folder: Path) -> tuple[list[bytes], list[dict[str, object]]]:
    """Its projectors, and its metrics but for times."""
    files = [(folder / f"projector-{which}.safetensors").read_bytes() for which in runs.WHICH]
    odd = {"tokens_per_s", "soft_per_s", "data_wait", "memory_gb"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return files, [{k: v for k, v in line.items() if k not in odd} for line in lines]


# Which call of which writer is the last: a checkpoint is a state, then a projector; `init` and each
# `best` are projectors too, so the calls are: init, (best), last, (best), last, ...
STOPS = [("save_state", n, after) for n in (1, 2, 3) for after in (False, True)]
STOPS += [("save_projector", n, after) for n in range(1, 8) for after in (False, True)]
STOPS += [("append_metrics", n, after) for n in (1, 2, 4) for after in (False, True)]


@pytest.mark.parametrize(("writer", "nth", "after"), STOPS)
def test_a_stop_at_any_file_leaves_no_trace(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, nth: int, after: bool
) -> None:
    whole, calls = getattr(runs, writer), []

    def stopping(*args: object) -> None:
        calls.append(1)
        if len(calls) == nth and not after:
            raise _StoppedError
        whole(*args)
        if len(calls) == nth:
            raise _StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(runs, writer, stopping)
        try:
            train(options(parts), tmp_path / "run")
        except _StoppedError:
            assert len(calls) == nth
        else:
            assert len(calls) < nth, "it never got so far"
    torch.manual_seed(4711)  # another process starts with another generator
    train(options(parts), tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == content(parts / "whole")


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("gone", [["state.pt"], ["state.pt", "config.json"]])
def test_a_run_that_lost_its_state_is_not_written_over(
    parts: Path, tmp_path: Path, resume: bool, gone: list[str]
) -> None:
    run = shutil.copytree(parts / "whole", tmp_path / "run")
    for name in gone:
        (run / name).unlink()
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    with pytest.raises(OmniError, match=r"no state\.pt to go on from|there is a run already"):
        train(options(parts), run, resume=resume)
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_a_link_to_a_state_that_is_gone_is_no_fresh_start(parts: Path, tmp_path: Path) -> None:
    run = shutil.copytree(parts / "whole", tmp_path / "run")
    (run / "state.pt").unlink()
    (run / "state.pt").symlink_to("elsewhere")
    with pytest.raises(OmniError, match=r"nothing to resume .*state\.pt"):
        train(options(parts), run, resume=True)
