"""The demo's commands, and what it sums up. That they run is shown by `make demo`.

.venv/bin/python -m pytest tests/cli/test_demo.py
"""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from places import ROOT

from cli import demo
from omni import runs


def test_each_stage_is_a_command_that_its_own_parser_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    given = {}
    for command, *options in demo.stages(tmp_path, 7):
        module = importlib.import_module("cli." + command[5:].replace("-", "_"))
        given[command, len(given)] = module.build_parser().parse_args(options)
    commands = [command for command, _ in given]
    assert commands == [
        *["omni-extract"] * 2, "omni-train-projector", "omni-mix", "omni-train-projector", "omni-pca"
    ]  # fmt: skip
    speech, mini, first, mix, second, report = given.values()
    assert (speech.split, mini.split) == ("demo", "audiobench-mini")
    assert speech.window == mini.window  # a run refuses features of another kind
    assert (first.seed, second.seed) == (7, 7)
    assert (first.run, second.run) == ("demo", "answers")
    assert second.tasks == str(mix.out)
    assert second.parent == str(tmp_path / "runs" / "demo")
    assert str(mini.out) not in (str(s) for s in (*first.shards, *second.shards))
    assert str(mini.out) in (str(s) for s in report.shards)
    assert report.tasks == ["manifests/audiobench-mini/mini.parquet"]


def test_the_stages_are_named_wholly_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    questions = Path(demo.stages(Path("demo"), 0)[-1][-3])
    assert questions.is_absolute()
    assert questions.exists()


def test_the_summary_holds_both_runs_and_the_minis_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = {"wer": 0.02, "ce": 0.1, "ce_shuffled": 6.0, "gap_shuffled": 5.9}
    lines = [
        {"eval": {"demo-heldout": {**judged, "gap_shuffled": 0.01}, "demo-heldout-voice": judged}},
        {"loss": 1.0},
        {"eval": {"demo-heldout": judged, "demo-heldout-voice": {**judged, "wer": 0.03}}},
    ]
    provenance = {"fingerprint_config": {"encoder": "e"}, "lm_hash": "l"}
    asked = []

    def load(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(metrics=lambda: lines, provenance=provenance)

    monkeypatch.setattr(runs, "load_run", load)
    controls = {"blind": {"accuracy": 0.26}, "shuffled": {"accuracy": 0.24}}
    tasks = {"mini": {"words": {"accuracy": 0.8, "strict": 0.6, "controls": controls}}}
    report = tmp_path / "report.html"
    (tmp_path / "report.json").write_text(json.dumps({"runs": [{"tasks": tasks}]}))
    summary = demo._summary(tmp_path, report, 12.34)
    assert asked == [tmp_path / "runs" / "demo"]
    assert summary["wer_heldout"] == 0.02
    assert summary["wer_heldout_voice"] == 0.03
    assert summary["ce_untrained_gap"] == 0.01
    assert (summary["mini_accuracy"], summary["mini_strict"]) == (0.8, 0.6)
    assert (summary["mini_blind"], summary["mini_shuffled"]) == (0.26, 0.24)
    assert "80.0%" in demo._table(summary)
    assert "24.0%" in demo._table(summary)
