"""The run folder: what goes in comes out, whole files only, nothing that could run."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from run_kit import run_config, run_provenance

from omni import runs
from omni.bridge.projector import build_projector
from omni.errors import OmniError

CONFIG = run_config()
PROVENANCE = run_provenance()
STATE = {
    "step": 3, "position": [0, 3], "best": 1.5, "projector": {"w": torch.zeros(2)},
    "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "rng": torch.get_rng_state(),
    "eval": "{}", "world": 1,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return runs.create_run(tmp_path / "r", CONFIG, PROVENANCE).path


def test_projector_comes_back_frozen_and_equal(folder: Path) -> None:
    torch.manual_seed(1)
    projector = build_projector(**CONFIG["projector"])
    runs.save_projector(folder, "best", projector)
    loaded = runs.load_run(folder).projector("best")
    assert all(
        torch.equal(a, b) for a, b in zip(projector.parameters(), loaded.parameters(), strict=True)
    )
    assert not any(p.requires_grad for p in loaded.parameters())
    first = (folder / "projector-best.safetensors").read_bytes()
    runs.save_projector(folder, "best", projector)
    assert (folder / "projector-best.safetensors").read_bytes() == first


def test_missing_and_foreign_checkpoints_are_named(folder: Path) -> None:
    run = runs.load_run(folder)
    with pytest.raises(OmniError, match="projector-last"):
        run.projector("last")
    with pytest.raises(OmniError, match="best, last, init"):
        run.projector("newest")
    other = build_projector(d_in=8, n_embd=32, hidden=8)
    runs.save_projector(folder, "last", other)
    with pytest.raises(OmniError, match=r"does not fit.*projector-last"):
        run.projector("last")


def test_features_of_another_encoder_are_refused(folder: Path) -> None:
    run = runs.load_run(folder)
    run.check_features("ab" * 32)
    with pytest.raises(OmniError, match=r"fingerprint efef.*trained on abab.*some-shards"):
        run.check_features("ef" * 32, "some-shards")


def test_newest_run_is_the_one_last_written(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="no training run"):
        runs.newest_run(tmp_path)
    projector = build_projector(**CONFIG["projector"])
    for name in ("b", "a"):
        runs.create_run(tmp_path / name, CONFIG, PROVENANCE)
        runs.save_projector(tmp_path / name, "last", projector)

    os.utime(tmp_path / "b" / "projector-last.safetensors", (0, 0))
    assert runs.newest_run(tmp_path).path.name == "a"


def test_no_run_and_another_schema(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="no training run"):
        runs.load_run(tmp_path)
    folder = runs.create_run(tmp_path, CONFIG, PROVENANCE).path
    (folder / "config.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(OmniError, match="schema 99"):
        runs.load_run(folder)


def test_state_holds_only_what_weights_only_admits(folder: Path) -> None:
    runs.save_state(folder, STATE)
    loaded = runs.load_state(folder)
    assert loaded["optimizer"] == STATE["optimizer"]
    assert torch.equal(loaded["rng"], STATE["rng"])
    (folder / "state.pt").write_bytes(b"PK broken")
    with pytest.raises(OmniError, match="damaged state"):
        runs.load_state(folder)


def test_a_full_disk_leaves_the_old_checkpoint_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.save_state(folder, STATE)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("omni.formats.files.os.fsync", full)
    with pytest.raises(OmniError, match=r"No space left.*state\.pt.*untouched"):
        runs.save_state(folder, {**STATE, "step": 9})
    assert runs.load_state(folder)["step"] == 3
    assert not list(folder.glob(".*.tmp"))


def test_metrics_after_the_resumed_step_go_and_a_half_line_too(folder: Path) -> None:
    for step in (1, 2, 3):
        runs.append_metrics(folder, {"step": step, "loss": 0.5})
    with (folder / "metrics.jsonl").open("a") as out:
        out.write('{"step": 2, "lo')
    runs.trim_metrics(folder, 2)
    assert [m["step"] for m in runs.load_run(folder).metrics()] == [1, 2]
