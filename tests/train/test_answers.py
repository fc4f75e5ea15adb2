"""Learning to answer: adapters and projector together, from a run, by a table of tasks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import ROOT
from ranks_kit import train_ranks
from run_kit import DIES_AT_STEP
from step_kit import make_trainee, pack
from tasks_kit import about, header
from training_kit import save_lm, speech, tiny_lm, write_split

from omni import runs
from omni.bridge.turns import Turn
from omni.errors import OmniError
from omni.formats.tasks import make_tasks, write_tasks
from omni.nanochat.lora import Lora
from train.loop import train
from train.options import TrainOptions
from train.ranks import Peers
from train.start import read_inputs
from train.step import Trainee, backward, make_optimizer, train_step
from train.stream import Packed

SAMPLES = speech(48)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Shards, a table about them, an LM, and a run that repeats."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("parts")
    write_split(root / "shards", "train-x", SAMPLES)
    write_split(root / "shards", "dev-x", speech(6, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    write_tasks(about(SAMPLES, own=True, texts=20), root / "answers.parquet")
    train(replace(options(root, lora=0), tasks=None, parent=None), root / "first")
    train(options(root), root / "whole")
    yield root
    torch.set_num_threads(threads)


def options(root: Path, **changes: object) -> TrainOptions:
    base = {
        "shards": (str(root / "shards"),), "lm": str(root / "lm"), "steps": 8, "batch_size": 8,
        "hidden": 16, "eval_every": 3, "save_every": 3, "decode_limit": 0, "wandb": "disabled",
        "device": "cpu", "warmup": 1, "tasks": str(root / "answers.parquet"), "turns": 2,
        "parent": str(root / "first"), "lora": 2, "lora_lr": 1e-2,
    }  # fmt: skip
    return TrainOptions(**{**base, **changes})  # type: ignore[arg-type]


def weights(folder: Path) -> list[bytes]:
    names = [
        f"{what}-{which}.safetensors"
        for what in ("lora", "projector")
        for which in ("best", "last")
    ]
    return [(folder / name).read_bytes() for name in names]


def test_a_run_keeps_the_projector_before_any_training_however_many_went_before(
    parts: Path, tmp_path: Path
) -> None:
    third = tmp_path / "third"
    train(options(parts, parent=str(parts / "whole"), steps=1), third)
    first = (parts / "first" / "projector-init.safetensors").read_bytes()
    for run in (parts / "whole", third):
        assert (run / "projector-untrained.safetensors").read_bytes() == first
        weight = runs.load_run(run).untrained().row_head.weight
        assert torch.equal(weight, runs.load_run(parts / "first").projector("init").row_head.weight)
        assert not torch.equal(weight, runs.load_run(run).projector("init").row_head.weight)
    assert not (parts / "first" / "projector-untrained.safetensors").exists()


def test_the_run_says_what_it_was_made_of(parts: Path) -> None:
    run = runs.load_run(parts / "whole")
    assert run.config["lora"] == {
        "rank": 2, "alpha": 4.0, "dropout": 0.05, "everywhere": False,
        "targets": ["attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    }  # fmt: skip
    assert run.config["select"] == "tasks"
    assert run.provenance["tasks"]["rows"] == 4 * 48 + 20
    parent = run.provenance["parent"]
    assert parent["path"] == str(parts / "first")
    assert parent["lora"] == ""
    assert run.provenance["lm_hash"] == tiny_lm().fingerprint()
    asked = [line["tasks"] for line in run.metrics() if "tasks" in line]
    assert len(asked) == 4
    assert asked[-1]["ce"] < asked[0]["ce"]


def test_its_adapters_are_worn_and_heard(parts: Path) -> None:
    run, lm = runs.load_run(parts / "whole"), tiny_lm()
    first = runs.load_run(parts / "first")
    assert first.load_adapters(lm) is None
    before = first.projector("best").state_dict()
    after = runs.load_run(parts / "whole").projector("init").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    lora = run.load_adapters(lm, "last")
    assert lora is not None
    assert max(p.abs().max() for n, p in lora.named_parameters() if n.endswith(".B")) > 0


@pytest.mark.parametrize("at", [1, 3, 4, 6, 8])
def test_a_kill_leaves_no_trace(parts: Path, tmp_path: Path, at: int) -> None:
    """SIGKILL at five steps: of those that save, between the state and the weights."""
    o = options(parts)
    args = [
        "--shards", *o.shards, "--lm", o.lm, "--steps", "8", "--batch-size", "8", "--hidden", "16",
        "--eval-every", "3", "--save-every", "3", "--decode-limit", "0", "--wandb", "disabled",
        "--device", "cpu", "--warmup", "1", "--tasks", o.tasks, "--turns", "2", "--from", o.parent,
        "--lora", "2", "--lora-lr", "1e-2", "--runs", str(tmp_path), "--run", "killed",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    died = subprocess.run(
        [sys.executable, "-c", DIES_AT_STEP, str(at), *args], cwd=ROOT, env=env, capture_output=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    train(options(parts), tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(parts / "whole")


def test_questions_are_asked_as_it_trains(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = [task for task in about(speech(6, 5, 500, "bob")).rows if task.options]
    table = make_tasks(header("eval"), judged)
    write_tasks(table, tmp_path / "mini.parquet")
    train(options(parts, eval_tasks=str(tmp_path / "mini.parquet")), tmp_path / "run")
    lines = [m for m in runs.load_run(tmp_path / "run").metrics() if "choices" in m]
    assert [m["step"] for m in lines] == [0, 3, 6, 8]
    found = lines[-1]["choices"]["mini"]["words"]
    assert found["n"] == 6
    assert set(found["controls"]) == {"blind", "shuffled", "noise"}
    # A byte-wise LM of random weights hears nothing, and the last line says so.
    assert f"questions on words: {found['verdict']}" in capsys.readouterr().err
    assert found["verdict"].startswith("not shown to hear")
    # Questions change nothing of what is learnt.
    assert weights(tmp_path / "run") == weights(parts / "whole")
    with pytest.raises(OmniError, match="a table for training does not judge"):
        read_inputs(options(parts, eval_tasks=str(parts / "answers.parquet")), Peers())
    write_tasks(
        make_tasks(header("eval"), [replace(judged[0], id="nobody")]), tmp_path / "mini.parquet"
    )
    with pytest.raises(OmniError, match="nobody among them"):
        read_inputs(options(parts, eval_tasks=str(tmp_path / "mini.parquet")), Peers())


def test_frozen_projector_stays_and_adapters_move(parts: Path, tmp_path: Path) -> None:
    train(options(parts, freeze_projector=True, steps=3), tmp_path / "run")
    first, run = runs.load_run(parts / "first"), runs.load_run(tmp_path / "run")
    before, after = first.projector("best").state_dict(), run.projector("last").state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    lora = run.load_adapters(tiny_lm(), "last")
    assert lora is not None
    assert all(p.abs().max() > 0 for n, p in lora.named_parameters() if n.endswith(".B"))


def test_a_run_with_adapters_goes_on_from_them(parts: Path, tmp_path: Path) -> None:
    inputs = read_inputs(options(parts, parent=str(parts / "whole")), Peers())
    lora = runs.load_run(parts / "whole").load_adapters(tiny_lm(), "best")
    assert lora is not None
    assert inputs.lm.lora is not None
    mine = inputs.lm.lora.state_dict()
    assert all(torch.equal(mine[key], value) for key, value in lora.state_dict().items())
    assert all(p.requires_grad for p in inputs.lm.lora.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": 4}, "has adapters of rank 2 .* asked for is rank 4"),
        ({"lora": 0}, "has adapters of rank 2"),
        ({"lora_alpha": 1.0}, "alpha 4 .* alpha 1"),
        ({"lora_targets": "attn"}, "has adapters of rank 2"),
    ],
)
def test_other_adapters_than_the_parents_are_refused(
    parts: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(OmniError, match=words):
        read_inputs(options(parts, parent=str(parts / "whole"), **changes), Peers())


def test_a_damaged_adapter_file_is_refused(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "whole", tmp_path / "run")
    file = tmp_path / "run" / "lora-best.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(OmniError, match="damaged"):
        read_inputs(options(parts, parent=str(tmp_path / "run")), Peers())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["lora"]["rank"] = 3
    shutil.copy(parts / "whole" / "lora-best.safetensors", file)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(OmniError, match="the run's config says 3"):
        read_inputs(options(parts, parent=str(tmp_path / "run")), Peers())


def test_another_table_is_not_gone_on_with(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "whole", tmp_path / "run")
    other = tmp_path / "answers.parquet"
    write_tasks(about(SAMPLES[:40], own=True), other)
    shutil.copy(other, tmp_path / "kept.parquet")
    root = tmp_path / "parts"
    root.mkdir()
    for name in ("shards", "lm", "first"):
        (root / name).symlink_to(parts / name)
    shutil.copy(other, root / "answers.parquet")
    with pytest.raises(OmniError, match="can't resume"):
        train(options(root), tmp_path / "run", resume=True)


# -- one step --------------------------------------------------------------------------------------


def asked(rank: int = 0, world: int = 1, alone: int = 0) -> Packed:
    """A batch in which each utterance is asked two things, and rows of text alone."""
    packed = pack(rank, world)
    rows = [
        (Turn(" first?", text.split()[0], True), Turn("last?", text.split()[-1], own=True))
        for text in packed.texts
    ]
    return packed._replace(rows=[*rows, *[(Turn("hi", "ho"),)] * alone])


def trainee(dropout: float = 0.0, **changes: object) -> Trainee:
    made = make_trainee()
    lora = Lora(made.lm.config, 2, 4.0, dropout).train()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in lora.named_parameters():
            if name.endswith(".B"):
                p.normal_(0, 0.02, generator=generator)
    made.lm.wear(lora)
    made.optimizer = make_optimizer(made.projector, 1e-3, lora, 1e-2)
    return replace(made, ctc=0.0, **changes)  # type: ignore[arg-type]


def all_gradients(made: Trainee) -> torch.Tensor:
    parameters = [p for group in made.optimizer.param_groups for p in group["params"]]
    return torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])


def test_only_answers_are_asked_for() -> None:
    made, packed = trainee(), asked()
    figures = train_step(made, packed, 0.0)
    tokens = sum(len(turn.answer or "") + 1 for row in packed.rows or [] for turn in row)
    assert figures.n_tokens == tokens


@pytest.mark.parametrize("self_loss", ["ce", "kl"])
def test_micro_batches_change_no_gradient(self_loss: str) -> None:
    whole, parts = trainee(self_loss=self_loss), trainee(self_loss=self_loss, micro=3)
    for made in (whole, parts):
        backward(made, asked(alone=5))
    torch.testing.assert_close(all_gradients(whole), all_gradients(parts), rtol=1e-4, atol=1e-7)


def test_each_part_has_its_rate() -> None:
    made = trainee()
    before = [p.detach().clone() for group in made.optimizer.param_groups for p in group["params"]]
    train_step(made, asked(), 1e-3)
    assert [group["lr"] for group in made.optimizer.param_groups] == [1e-3, pytest.approx(1e-2)]
    after = [p for group in made.optimizer.param_groups for p in group["params"]]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_text_alone_teaches_adapters_only_where_they_act_everywhere() -> None:
    """Elsewhere they have no share in such rows, and the LM is frozen."""
    for everywhere in (False, True):
        with_text, without = trainee(everywhere=everywhere), trainee(everywhere=everywhere)
        sums = [backward(made, asked(alone=n)) for made, n in ((with_text, 4), (without, 0))]
        ratio = sums[0][2] / sums[1][2]  # of target tokens
        same = torch.allclose(
            all_gradients(with_text) * ratio, all_gradients(without), rtol=1e-3, atol=1e-8
        )
        assert same is not everywhere


def test_own_answers_are_drawn_to_the_bare_lms_distribution() -> None:
    """KL to the LM that reads the transcript: zero for a student who reads it too."""
    made, packed = trainee(self_loss="kl"), asked()
    kl = train_step(made, packed, 0.0).loss
    ce = train_step(trainee(), packed, 0.0).loss
    assert 0 < kl < ce
    for _ in range(60):
        last = train_step(made, packed, 1e-2).loss
    assert last < 0.7 * kl


def test_dropout_is_the_same_whenever_the_step_is_taken() -> None:
    first, again, plain = trainee(dropout=0.3), trainee(dropout=0.3), trainee()
    backward(first, asked())
    torch.manual_seed(4711)
    backward(again, asked())
    backward(plain, asked())
    assert torch.equal(all_gradients(first), all_gradients(again))
    assert not torch.equal(all_gradients(first), all_gradients(plain))


@pytest.mark.slow
def test_two_ranks_train_what_one_trains(parts: Path, tmp_path: Path) -> None:
    """The first step's gradients, seen in what they did: adapters and projector after one step."""
    o = options(parts)
    common = [
        "--shards", *o.shards, "--lm", o.lm, "--steps", "1", "--batch-size", "8", "--hidden", "16",
        "--decode-limit", "0", "--wandb", "disabled", "--device", "cpu", "--warmup", "1",
        "--tasks", o.tasks, "--turns", "2", "--from", o.parent, "--lora", "2", "--lora-lr", "1e-2",
        "--lora-dropout", "0", "--clip", "1e9", "--runs", str(tmp_path),
    ]  # fmt: skip
    for name, n in (("one", 1), ("two", 2)):
        ended = train_ranks([[*common, "--run", name]] * n)
        assert [rank.status for rank in ended] == [0] * n, ended
    one, two = (runs.load_state(tmp_path / name)["optimizer"]["state"] for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, held in one.items():  # the first moment is a tenth of the gradient
        torch.testing.assert_close(held["exp_avg"], two[key]["exp_avg"], rtol=0, atol=1e-7)
