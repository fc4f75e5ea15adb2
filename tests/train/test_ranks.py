"""Ranks agree before they start: what is resumed, that nobody has failed, that all read the same.

Each rank is a process of its own with arguments of its own: another --runs is another view of the
shared folder. .venv/bin/python -m pytest -m slow tests/train/test_ranks.py
"""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from ranks_kit import python_ranks, train_ranks
from training_kit import save_lm, speech, tiny_lm, write_split

from cli.train_projector import main
from omni import runs
from omni.errors import OmniError, SaidElsewhere
from omni.formats.shards import read_shard
from train import loop
from train.ranks import Peers


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_split(root / "shards", "train-x", speech(48))
    write_split(root / "shards", "dev-x", speech(40, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    return root


def arguments(parts: Path, runs_: Path, *more: str) -> list[str]:
    return [
        "--shards", str(parts / "shards"), "--lm", str(parts / "lm"), "--steps", "5", "--hidden",
        "32", "--batch-size", "15", "--decode-limit", "6", "--save-every", "2", "--eval-every", "5",
        "--wandb", "disabled", "--device", "cpu", "--runs", str(runs_), "--run", "r", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_rank_that_does_not_see_the_checkpoint_yet_resumes_from_it(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And evaluates its share: two batches of 32 and 8, one to each rank."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(arguments(parts, whole)) == 0
    steps, train_step = [], loop.train_step

    def some(*args: object) -> object:
        steps.append(1)
        if len(steps) == 4:
            raise OmniError("killed")
        return train_step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", some)
        assert main(arguments(parts, cut)) == 1
    assert runs.load_state(cut / "r")["step"] == 2
    stale = tmp_path / "stale"  # the run is not there yet
    ends = train_ranks([arguments(parts, at, "--resume") for at in (cut, stale)])
    assert [end.status for end in ends] == [0, 0], ends
    assert any("2 ranks now, 1 before" in line for line in ends[0].said)
    assert not stale.exists()
    one, two = (runs.load_run(at / "r") for at in (whole, cut))
    for a, b in zip(one.metrics(), two.metrics(), strict=True):
        assert a["step"] == b["step"]
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        else:
            mine, theirs = a["eval"]["dev-x"], b["eval"]["dev-x"]
            assert theirs["n_tokens"] == mine["n_tokens"]
            assert theirs["n_decoded"] == mine["n_decoded"] == 6
            for key in ("ce", "ce_shuffled", "ce_mean", "ce_none"):
                assert theirs[key] == pytest.approx(mine[key], rel=1e-3)
    weights = [run.projector("last").row_head.weight for run in (one, two)]
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_rank_that_fails_ends_all_with_one_line(parts: Path, tmp_path: Path) -> None:
    first = arguments(parts, tmp_path)
    second = arguments(parts, tmp_path, "--lm", str(tmp_path / "nowhere"))
    ends = train_ranks([first, second])
    assert [end.status for end in ends] == [1, 1]
    (line,) = ends[0].errors
    assert "(rank 1, " in line
    assert "nowhere" in line
    assert ends[1].errors == []
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_damaged_shard_ends_all_though_one_rank_finds_it(parts: Path, tmp_path: Path) -> None:
    """Each shard is checked whole by one rank: the other hears that it is gone."""
    shutil.copytree(parts / "shards", tmp_path / "shards")
    (tmp_path / "lm").symlink_to(parts / "lm")
    tar = tmp_path / "shards" / "train-x" / "train-x-000001.tar"
    data = bytearray(tar.read_bytes())
    frames = next(read_shard(tar)).features.tobytes()
    data[data.index(frames) + 40] ^= 1  # a finite number still: the sha256 alone tells
    tar.write_bytes(data)
    ends = train_ranks([arguments(tmp_path, tmp_path)] * 2)
    assert [end.status for end in ends] == [1, 1], ends
    errors = [line for end in ends for line in end.errors]
    (damage,) = [line for line in errors if "train-x-000001.tar" in line]
    assert "damaged shard" in damage
    assert all("another rank has ended" in line for line in errors if line != damage)
    assert [len(end.errors) for end in ends] == [1, 1], ends
    assert "Traceback" not in "".join(ends[0].said + ends[1].said)


@pytest.mark.slow
def test_ranks_with_other_data_are_refused(parts: Path, tmp_path: Path) -> None:
    """A node whose copy of the shards is an older one."""
    old = tmp_path / "old"
    shutil.copytree(parts / "shards", old / "shards")
    shutil.rmtree(old / "shards" / "train-x")
    write_split(old / "shards", "train-x", speech(30))
    (old / "lm").symlink_to(parts / "lm")
    ends = train_ranks([arguments(at, tmp_path) for at in (parts, old)])
    assert [end.status for end in ends] == [1, 1]
    (line,) = ends[0].errors
    assert "48 utterances, now 30 (rank 1)" in line.replace(")) ", ") ").replace("30)", "30")
    assert ends[1].errors == []


LEAVES = """
import os, sys
from pathlib import Path
from train.ranks import ranks
from omni.errors import OmniError

def gloo():
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)

held = []
try:
    with ranks("cpu") as peers:
        import torch._dynamo  # as the first optimiser does
        peers.wait()
        inside = gloo()
        if sys.argv[1] == "gone":
            if peers.rank == 1:
                os._exit(0)
            peers.wait()
        sys.setswitchinterval(60)  # a thread that wants the GIL now gets none
except OmniError as error:
    held.append(error)
print("raised", len(held), "inside", inside > 0, "after", gloo(), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the names of threads")
@pytest.mark.parametrize(("how", "raised"), [("done", 0), ("gone", 1)])
def test_no_thread_of_a_group_outlives_it(how: str, raised: int) -> None:
    """One that does aborts the process if it wants the GIL once Python ends: a rank that has done
    all its work would have failed. Whatever torch imports meanwhile, and while an error is held."""
    ends = python_ranks([["-c", LEAVES, how]] * 2)
    assert [end.status for end in ends] == [0, 0], ends
    assert ends[0].said[-1] == f"raised {raised} inside True after 0", ends


def test_alone_an_agreement_is_a_plain_call() -> None:
    alone = Peers()
    assert alone.agreed(lambda: 3) == alone.first(lambda: 3) == 3
    assert alone.gather("mine") == ["mine"]
    with pytest.raises(ZeroDivisionError):
        alone.agreed(lambda: 1 // 0)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_what_failed_is_said_by_rank_0_whoever_it_was(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    ends = [None, OmniError("no such folder", "x", "make it", 7), OmniError("later")]
    monkeypatch.setattr(Peers, "gather", lambda self, mine: ends)
    kind = OmniError if rank == 0 else SaidElsewhere
    with pytest.raises(kind, match="no such folder") as caught:
        Peers(rank, 3).agreed(lambda: None)
    assert caught.value.exit_code == 7
    if rank == 0:
        assert caught.value.where == "rank 1, x"
