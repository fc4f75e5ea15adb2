"""A whole run on tiny parts: its folder, its controls, and a kill that leaves no trace."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from places import ROOT
from run_kit import DIES_AT_STEP
from training_kit import CONFIG, save_lm, speech, tiny_lm, write_split

from omni import runs
from omni.errors import OmniError
from omni.formats.shards import Sample
from train import loop
from train.data import gather
from train.loop import train
from train.options import TrainOptions


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of two splits and a tiny LM."""
    root = tmp_path_factory.mktemp("parts")
    write_split(root / "shards", "train-x", speech(64))
    write_split(root / "shards", "dev-x", speech(12, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    return root


def options(parts: Path, **changes: object) -> TrainOptions:
    base = {
        "shards": (str(parts / "shards"),), "lm": str(parts / "lm"), "steps": 8, "warmup": 2,
        "batch_size": 16, "hidden": 32, "lr": 3e-3, "eval_every": 4, "save_every": 3,
        "decode_limit": 2, "buffer": 32, "wandb": "disabled", "ctc_weight": 0.0, "noise": 0.0,
        "gain": 0.0, "stretch": 0.0,
    }  # fmt: skip
    return TrainOptions(**{**base, **changes})  # type: ignore[arg-type]


def test_the_run_folder_holds_what_the_contract_says(parts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    last = train(options(parts), folder, command=["omni-train-projector"])
    want = (
        "config.json curves.svg metrics.jsonl projector-best.safetensors projector-init.safetensors"
    )
    want += " projector-last.safetensors provenance.json state.pt"
    assert sorted(p.name for p in folder.iterdir()) == want.split()
    run = runs.load_run(folder)
    want_template = {"kind": "sft", "prompt": " Repeat that.", "audio_first": False}
    assert run.config["template"] == want_template
    assert run.config["select"] == "dev-x"
    assert run.provenance["lm_hash"] == tiny_lm().fingerprint()
    assert run.provenance["fingerprint_config"] == CONFIG
    assert run.provenance["command"] == ["omni-train-projector"]
    lines = run.metrics()
    assert [m["step"] for m in lines if "loss" in m] == list(range(1, 9))
    assert [m["step"] for m in lines if "eval" in m] == [0, 4, 8]
    assert lines[-1]["eval"]["dev-x"]["ce"] == last["dev-x"]["ce"]
    init, end = run.projector("init"), run.projector("last")
    assert not torch.equal(init.row_head.weight, end.row_head.weight)
    assert init.ve_head.weight.abs().max() == 0 < end.ve_head.weight.abs().max()


def test_an_untrained_projector_has_no_gap_and_a_trained_one_has(
    parts: Path, tmp_path: Path
) -> None:
    train(options(parts, steps=60, eval_every=60), tmp_path / "run")
    evals = [m["eval"]["dev-x"] for m in runs.load_run(tmp_path / "run").metrics() if "eval" in m]
    assert abs(evals[0]["gap_shuffled"]) < 0.05
    assert evals[-1]["gap_shuffled"] > 0.25


def test_texts_too_long_for_ctc_are_told(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny LM's tokens are bytes: nearly every text outnumbers its soft tokens."""
    train(options(parts, steps=2, ctc_weight=1.0), tmp_path / "run")
    lines = [m for m in runs.load_run(tmp_path / "run").metrics() if "loss" in m]
    counted = sum(m["ctc_unserved"] for m in lines)
    assert 0 < counted <= 32
    assert f"CTC: {counted} of 32 rows" in capsys.readouterr().err
    train(options(parts, steps=2), tmp_path / "without")
    assert "CTC:" not in capsys.readouterr().err


def test_wrong_pairs_teach_no_listening(parts: Path, tmp_path: Path) -> None:
    changes = {"steps": 60, "eval_every": 60, "shuffle_pairs": True, "decode_limit": 12}
    last = train(options(parts, **changes), tmp_path / "run")["dev-x"]
    assert abs(last["gap_shuffled"]) < 0.1
    assert last["wer"] > 0.9


def test_what_is_judged_may_fill_a_row_and_is_decoded_as_far_as_it_goes(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of 640 positions: one judged utterance needs all but a few, another some too many."""
    (long,) = speech(1, 1, 0, "bob")
    judged = speech(3, 1, 1, "bob")
    for name, n_frames in (("fits", 2400), ("too-long", 2600)):
        features = long.features[:1].repeat(n_frames, 0)
        meta = {**long.meta, "id": name, "text_norm": "red", "n_frames": n_frames}
        judged.append(Sample(name, meta, features))
    write_split(tmp_path / "shards", "dev-y", judged, role="eval")
    save_lm(tmp_path / "lm", tiny_lm(sequence_len=64))
    recipe = options(
        parts, lm=str(tmp_path / "lm"), eval_shards=(str(tmp_path / "shards"),), steps=2,
        decode_limit=9,
    )  # fmt: skip
    last = train(recipe, tmp_path / "run")["dev-y"]
    assert (last["n"], last["n_decoded"]) == (4, 4)
    assert "1 utterance too long for the LM (longest: too-long, 52.0 s" in capsys.readouterr().err


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2])
def test_a_resumed_run_ends_bit_equal(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Stopped after its first or second checkpoint, and some steps beyond it."""
    recipe = options(parts, ctc_weight=0.5, noise=0.1, mask=0.1, stretch=0.1)
    train(recipe, tmp_path / "whole")
    seen = []

    def step_then_stop(*args: object) -> object:
        seen.append(1)
        if len(seen) == 3 * at + 2:
            raise _KilledError
        return train_step(*args)

    train_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", step_then_stop)
    with pytest.raises(_KilledError):
        train(recipe, tmp_path / "cut")
    monkeypatch.undo()
    assert runs.load_state(tmp_path / "cut")["step"] == 3 * at
    torch.manual_seed(12345)  # another process starts with another generator
    train(recipe, tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def assert_same_run(a: Path, b: Path) -> None:
    for which in runs.WHICH:
        name = f"projector-{which}.safetensors"
        assert (a / name).read_bytes() == (b / name).read_bytes(), which
    times = {"tokens_per_s", "soft_per_s", "data_wait", "memory_gb"}
    mine, theirs = (
        [{k: v for k, v in m.items() if k not in times} for m in runs.load_run(x).metrics()]
        for x in (a, b)
    )
    assert mine == theirs


@pytest.mark.slow
def test_sigkill_at_random_steps_leaves_no_trace(parts: Path, tmp_path: Path) -> None:
    """Five kills of the real command, one of them between the files of a checkpoint."""
    steps = 40
    args = [
        "--shards", str(parts / "shards"), "--lm", str(parts / "lm"), "--steps", str(steps),
        "--batch-size", "16", "--hidden", "32", "--eval-every", "13", "--save-every", "3",
        "--decode-limit", "2", "--noise", "0.1", "--wandb", "disabled", "--runs", str(tmp_path),
        "--resume",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cli.train_projector", *args]
    subprocess.run([*command, "--run", "whole"], check=True, timeout=300, env=environment)
    targets = sorted(random.Random(0).sample(range(2, steps), 5))
    assert any(target % 3 == 0 for target in targets), "no kill inside a checkpoint"
    for target in targets:
        dying = [sys.executable, "-c", DIES_AT_STEP, str(target), *args, "--run", "cut"]
        died = subprocess.run(dying, cwd=ROOT, env=environment, timeout=300, check=False)
        assert died.returncode == -signal.SIGKILL
    subprocess.run([*command, "--run", "cut"], check=True, timeout=300, env=environment)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_torchrun_with_two_ranks_trains_as_one_does(parts: Path, tmp_path: Path) -> None:
    recipe = [
        "--shards", str(parts / "shards"), "--lm", str(parts / "lm"), "--steps", "6", "--hidden",
        "32", "--batch-size", "15", "--decode-limit", "2", "--wandb", "disabled", "--device", "cpu",
        "--runs", str(tmp_path),
    ]  # fmt: skip
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [sys.executable, "-m", *launcher, "cli.train_projector", *recipe, "--run", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, timeout=300, env=environment)
    one, two = (runs.load_run(tmp_path / name) for name in ("one", "two"))
    losses = [[m["loss"] for m in run.metrics() if "loss" in m] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    a, b = (run.projector("last").row_head.weight for run in (one, two))
    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


def test_out_of_memory_says_which_flag_halves_it(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "train_step", full)
    with pytest.raises(OmniError, match=r"micro-batch of 16.*--micro-batch-size 8 halves"):
        train(options(parts), tmp_path / "run")


def test_an_lm_that_moved_is_an_error(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = loop.train_step

    def careless(trainee: object, *args: object) -> object:
        trainee.lm.lm_head.weight.data.add_(1e-3)
        return train_step(trainee, *args)

    monkeypatch.setattr(loop, "train_step", careless)
    with pytest.raises(OmniError, match="the frozen LM has changed"):
        train(options(parts, steps=1), tmp_path / "run")


def test_a_finished_run_resumes_to_itself(parts: Path, tmp_path: Path) -> None:
    first = train(options(parts), tmp_path / "run")
    before = (tmp_path / "run" / "projector-last.safetensors").read_bytes()
    again = train(options(parts), tmp_path / "run", resume=True)
    assert json.dumps(again) == json.dumps(first)
    assert (tmp_path / "run" / "projector-last.safetensors").read_bytes() == before


def test_a_run_is_neither_overwritten_nor_resumed_with_another_recipe(
    parts: Path, tmp_path: Path
) -> None:
    train(options(parts, steps=3), tmp_path / "run")
    with pytest.raises(OmniError, match=r"a run already.*--resume"):
        train(options(parts, steps=3), tmp_path / "run")
    with pytest.raises(OmniError, match=r"lr: 0\.003, now 0\.5"):
        train(options(parts, steps=3, lr=0.5), tmp_path / "run", resume=True)


def test_a_run_is_not_resumed_on_other_data(parts: Path, tmp_path: Path) -> None:
    """The same bytes elsewhere are the same data; the same place with other bytes is not."""
    here = tmp_path / "here"
    shutil.copytree(parts / "shards", here)
    recipe = options(parts, steps=3, shards=(str(here),))
    train(recipe, tmp_path / "run")
    here.rename(tmp_path / "there")
    moved = options(parts, steps=3, shards=(str(tmp_path / "there"),))
    train(moved, tmp_path / "run", resume=True)
    write_split(here, "train-x", speech(64, seed=9))
    shutil.copytree(parts / "shards" / "dev-x", here / "dev-x")
    with pytest.raises(
        OmniError, match=r"other training data \(train-x: 64 utterances, now others"
    ):
        train(recipe, tmp_path / "run", resume=True)


def test_features_of_two_encoders_are_refused(parts: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "train-y", speech(8), config={**CONFIG, "encoder": "other"})
    both = (str(parts / "shards"), str(tmp_path))
    with pytest.raises(
        OmniError, match=r"encoder: synthetic and other|encoder: other and synthetic"
    ):
        train(options(parts, shards=both), tmp_path / "run")


def test_nothing_to_train_on_is_told(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OmniError, match="no training samples"):
        train(options(parts, shards=(str(tmp_path / "empty"),)), tmp_path / "run")
    with pytest.raises(OmniError, match="no such shard folder"):
        train(options(parts, shards=(str(tmp_path / "nowhere"),)), tmp_path / "run")
    only_dev = str(parts / "shards" / "dev-x")
    with pytest.raises(OmniError, match=r"no training samples.*dev-x"):
        train(options(parts, shards=(only_dev,)), tmp_path / "run")


def test_no_split_on_both_sides(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="train-x would both train and evaluate"):
        train(options(parts, eval_shards=(str(parts / "shards" / "train-x"),)), tmp_path / "run")


def test_without_an_evaluation_split_speakers_are_held_out(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [s for name in ("ann", "bob") for s in speech(40, len(name), 0, name)]
    people += speech(5, 1, 0, "cid")
    write_split(tmp_path / "shards", "train-y", people)
    last = train(options(parts, shards=(str(tmp_path / "shards"),), steps=2), tmp_path / "run")
    assert last["held-out"]["n"] == 5
    assert "1 of 3 speakers held out by hash (5 utterances)" in capsys.readouterr().err
    assert {i[:3] for i in runs.load_run(tmp_path / "run").held_out} == {"cid"}


def test_utterances_without_transcripts_are_left_out_but_noise_is_kept(
    parts: Path, tmp_path: Path
) -> None:
    people = speech(10, 1, 0, "ann") + speech(10, 2, 0, "bob")
    for sample in people[::2]:
        sample.meta["text_norm"] = ""
    hiss = speech(6, 3, 0, "noise-white")
    for sample in hiss:
        sample.meta["text_norm"] = ""
    write_split(tmp_path / "s", "train-y", people)
    write_split(tmp_path / "s", "noise-train", hiss[:4])
    write_split(tmp_path / "s", "noise-heldout", hiss[4:], role="eval")
    found = gather([str(tmp_path / "s")])
    assert sum(len(shard.places) for shard in found.shards) == 8 + 4  # two are held out
    assert {name: len(samples) for name, samples in found.eval_sets.items()} == {
        "noise-heldout": 2,
        "held-out": 2,
    }
    assert found.select == "held-out"
    shards = (str(tmp_path / "s"),)
    last = train(options(parts, shards=shards, steps=2, ctc_weight=1.0), tmp_path / "run")
    assert "wer" not in last["noise-heldout"]
    assert 0 <= last["noise-heldout"]["empty_rate"] <= 1


def test_wandb_offline_keeps_the_run_on_disk(parts: Path, tmp_path: Path) -> None:
    train(options(parts, steps=2, wandb="offline"), tmp_path / "run")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here")
def test_compiled_layers_train_alike(parts: Path, tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        train(options(parts, steps=3, compile=compiled), folder)
        lines = runs.load_run(folder).metrics()
        losses[compiled] = [line["loss"] for line in lines if "loss" in line]
    assert len(losses[True]) == 3
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    with pytest.raises(OmniError, match="compile: True, now False"):
        train(options(parts, steps=3), tmp_path / "True", resume=True)
