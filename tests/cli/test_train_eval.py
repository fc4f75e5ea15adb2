"""The two commands, from arguments to exit status, on tiny parts."""

import json
from pathlib import Path

import pytest
import torch
from training_kit import CONFIG, save_lm, speech, tiny_lm, write_split

from cli import eval as cli_eval
from cli import train_projector
from omni.runs import load_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a tiny LM, and a run of four steps made by the command."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("place")
    write_split(root / "shards", "train-x", speech(32))
    write_split(root / "shards", "dev-x", speech(6, 5, 500, "bob"), role="eval")
    save_lm(root / "lm", tiny_lm())
    args = f"--shards {root}/shards --lm {root}/lm --runs {root}/runs --run a --steps 4 --hidden 32"
    args += " --batch-size 8 --decode-limit 1 --wandb disabled --warmup 1"
    assert train_projector.main(args.split()) == 0
    yield root
    torch.set_num_threads(threads)


def test_eval_prints_the_table_and_writes_every_utterance(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert cli_eval.main([f"{place}/runs/a", "--json", str(out), "--examples", "2"]) == 0
    text = capsys.readouterr().out
    figures = json.loads(out.read_text())["dev-x"]
    assert f"{figures['ce']:.3f}" in text
    assert figures["verdict"] in text
    assert len(figures["utterances"]) == 6
    assert text.count("->") == 2


def test_eval_picks_splits_and_checkpoints(place: Path, tmp_path: Path) -> None:
    ces = {}
    for checkpoint in ("init", "last"):
        out = tmp_path / f"{checkpoint}.json"
        args = [f"{place}/runs/a", "--split", "train-x", "--checkpoint", checkpoint]
        args += ["--limit", "5", "--decode-limit", "0", "--json", str(out)]
        assert cli_eval.main(args) == 0
        figures = json.loads(out.read_text())
        assert list(figures) == ["train-x"]
        assert figures["train-x"]["n"] == 5
        ces[checkpoint] = figures["train-x"]["ce"]
    assert ces["last"] < ces["init"]


def test_eval_refuses_another_encoder_and_another_lm(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path / "s", "dev-y", speech(2), role="eval", config={**CONFIG, "encoder": "b"})
    assert cli_eval.main([f"{place}/runs/a", "--shards", str(tmp_path / "s")]) == 1
    assert "error: features have fingerprint" in capsys.readouterr().err
    save_lm(tmp_path / "lm", tiny_lm(seed=5))
    assert cli_eval.main([f"{place}/runs/a", "--lm", str(tmp_path / "lm")]) == 1
    assert "with --lm, or train anew" in capsys.readouterr().err
    assert cli_eval.main([f"{place}/runs/a", "--split", "test-z"]) == 1
    assert "no split to evaluate (test-z)" in capsys.readouterr().err


def test_eval_judges_by_what_the_run_held_out(place: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "s", "train-y", speech(40) + speech(3, 7, 600, "bob"))
    args = f"--shards {tmp_path}/s --lm {place}/lm --runs {tmp_path} --run r --steps 2 --hidden 32"
    args += " --batch-size 8 --decode-limit 1 --wandb disabled --warmup 1"
    assert train_projector.main(args.split()) == 0
    run = load_run(tmp_path / "r")
    assert {i.partition("-")[0] for i in run.held_out} == {"bob"}
    out = tmp_path / "figures.json"
    args = f"{tmp_path}/r --checkpoint last --decode-limit 1 --json {out}"
    assert cli_eval.main(args.split()) == 0
    figures = json.loads(out.read_text())
    assert [u["id"] for u in figures["held-out"]["utterances"]] == run.held_out
    logged = [line for line in run.metrics() if "eval" in line][-1]["eval"]["held-out"]
    assert figures["held-out"]["ce"] == pytest.approx(logged["ce"], rel=1e-6)


def test_train_tells_errors_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = f"--shards {place}/shards --lm {place}/lm --runs {place}/runs --run a"
    assert train_projector.main(args.split()) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: there is a run already")
    assert "--resume" in lines[-1]


def test_help_groups_options_and_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (train_projector.main, cli_eval.main):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        for group in ("input:", "model:", "output:", "speed:"):
            assert group in text
        assert "(default: " in text
