"""Which LM a run accepts, which run is taken where none is named, and which split judges it."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from run_kit import run_config, run_provenance
from training_kit import save_lm, tiny_lm

from omni import runs
from omni.bridge.projector import build_projector
from omni.errors import OmniError
from omni.nanochat import NanoChat, load_checkpoint


def make(folder: Path, lm: NanoChat, **changes: object) -> runs.Run:
    sizes = build_projector(d_in=8, n_embd=64, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=8).config
    return runs.create_run(folder, run_config(sizes, **changes), run_provenance(lm))


# -- the LM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", [torch.float32, torch.bfloat16])
def test_the_lm_of_the_training_is_known_in_any_dtype_and_no_other_is(
    tmp_path: Path, trained: torch.dtype, used: torch.dtype
) -> None:
    """A GPU computes in bfloat16, a CPU in fp32: the check is one."""
    own, other = save_lm(tmp_path / "own", tiny_lm()), save_lm(tmp_path / "other", tiny_lm(seed=5))
    run = make(tmp_path / "r", load_checkpoint(own, dtype=trained)[0])
    run.check_lm(load_checkpoint(own, dtype=used)[0])
    with pytest.raises(OmniError, match=r"the LM has hash .* the run was trained with .*elsewhere"):
        run.check_lm(load_checkpoint(other, dtype=used)[0], "elsewhere")


@pytest.mark.parametrize("key", ["lm_head.weight", "transformer.wte.weight", "resid_lambdas"])
@pytest.mark.parametrize("used", [torch.float32, torch.bfloat16])
def test_one_weight_that_differs_is_another_lm(tmp_path: Path, key: str, used: torch.dtype) -> None:
    run = make(tmp_path / "r", tiny_lm())
    near = tiny_lm()
    with torch.no_grad():
        near.state_dict()[key].view(-1)[0] += 0.01
    folder = save_lm(tmp_path / "near", near)
    with pytest.raises(OmniError, match="the LM has hash"):
        run.check_lm(load_checkpoint(folder, dtype=used)[0])


@pytest.mark.parametrize("key", ["lm_head.weight", "transformer.wte.weight", "resid_lambdas"])
def test_the_exact_hash_sees_the_last_bit(key: str) -> None:
    """The trainer compares it before and after: a frozen LM doesn't move, not even by rounding."""
    lm = tiny_lm()
    before = (lm.fingerprint(), lm.exact_hash())
    weight = lm.state_dict()[key].view(-1)[:1]
    weight.copy_(torch.nextafter(weight, weight + 1))
    assert lm.exact_hash() != before[1]
    if key != "resid_lambdas":  # which stays fp32 everywhere
        assert lm.fingerprint() == before[0]


def test_a_projector_for_another_lm_is_refused_before_a_shape_error(tmp_path: Path) -> None:
    lm = tiny_lm()
    wide = build_projector(d_in=8, n_embd=128, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=8).config
    run = runs.create_run(tmp_path / "r", run_config(wide), run_provenance(lm))
    with pytest.raises(OmniError, match=r"projector is for an LM of .*128"):
        run.check_lm(lm)


# -- the newest run ------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(folder: Path) -> None:
    lm = tiny_lm()
    run = make(folder, lm)
    runs.save_projector(folder, "last", build_projector(**run.config["projector"]))


def test_the_demos_run_is_used_where_there_is_no_other_and_a_line_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OmniError, match=r"no training run found \(runs and demo/runs\)"):
        runs.newest_run()
    trained(Path("demo/runs/demo"))
    assert runs.newest_run().path == Path("demo/runs/demo")
    assert capsys.readouterr().err == "no run below runs: demo/runs/demo is used\n"
    trained(Path("runs/mine"))
    os.utime("runs/mine/projector-last.safetensors", (0, 0))  # older, but the user's own
    assert runs.newest_run().path == Path("runs/mine")
    assert capsys.readouterr().err == ""


def test_a_named_root_is_the_only_one(here: Path) -> None:
    trained(Path("demo/runs/demo"))
    with pytest.raises(OmniError, match=r"no training run found \(elsewhere\)"):
        runs.newest_run("elsewhere")
    assert runs.newest_run(Path("demo/runs")).path.name == "demo"


def test_a_link_to_nowhere_is_no_run(here: Path) -> None:
    trained(Path("runs/mine"))
    Path("runs/gone").mkdir()
    Path("runs/gone/projector-last.safetensors").symlink_to("nowhere")
    assert runs.newest_run().path.name == "mine"


# -- what chose the checkpoint -------------------------------------------------------------------


def test_the_split_that_chose_the_best_checkpoint_is_not_clean(tmp_path: Path) -> None:
    run = make(tmp_path / "r", tiny_lm(), select="dev-x")
    assert (run.chosen_by("best"), run.clean_splits("best")) == ("dev-x", ["test-x"])
    assert (run.chosen_by("last"), run.clean_splits("last")) == ("", ["dev-x", "test-x"])
    alone = make(tmp_path / "alone", tiny_lm(), select="held-out")
    assert alone.chosen_by() == "held-out"


@pytest.mark.parametrize("command", ["eval", "pca", "transcribe"])
def test_each_command_that_reads_a_run_finds_the_demos(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As far as the run is read: its shards and LM are not there."""
    trained(Path("demo/runs/demo"))
    noise = np.random.default_rng(0).standard_normal(16000) / 10
    soundfile.write(here / "a.wav", noise, 16000)
    main = importlib.import_module(f"cli.{command}").main
    arguments = {"eval": [], "pca": ["r.html"], "transcribe": ["a.wav", "--lm", "nowhere/"]}
    assert main([*arguments[command], "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "no run below runs: demo/runs/demo is used" in said
    assert "no training run" not in said
