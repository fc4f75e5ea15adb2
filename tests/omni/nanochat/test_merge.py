"""omni-lm merge: a checkpoint in nanochat's layout that says what the LM with its adapters says; and
what omni-lm inspect tells of a run.

.venv/bin/python -m pytest tests/omni/nanochat/test_merge.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nanochat_kit import CONFIG, ERA_NAMES, adapters, inputs, write
from nanochat_reference import ruled_model
from run_kit import run_config, run_provenance

from cli.lm import main
from omni.bridge.projector import build_projector
from omni.errors import OmniError
from omni.nanochat import NanoChat, load_checkpoint
from omni.nanochat.lora import Lora, relative_change, save_lora
from omni.nanochat.memory import Recipe, Rows, training_memory
from omni.nanochat.merge import write_merged
from omni.runs import create_run


def make_run(folder: Path, lm_folder: Path, **which: Lora) -> NanoChat:
    """A run against the LM in a folder, with these adapters ("best", "last"); returns the LM."""
    lm, _, _ = load_checkpoint(lm_folder)
    sizes = {"n_embd": lm.config.n_embd, "n_ve": lm.n_ve, "kv_dim": lm.kv_dim}
    projector = build_projector(d_in=8, hidden=8, **sizes).config
    create_run(folder, run_config(projector, lm=str(lm_folder)), run_provenance(lm))  # type: ignore[arg-type]
    for name, lora in which.items():
        save_lora(lora, folder / f"lora-{name}.safetensors", lm.fingerprint())
    return lm


def alike(merged: Path, lm: NanoChat, lora: Lora) -> None:
    """Every row of the merged checkpoint is what the LM says in those that hear."""
    rows, ve = inputs(lm, [20, 20])
    want = lm.wear(lora).forward_embeds(rows, ve, heard=True)
    assert (load_checkpoint(merged)[0].forward_embeds(rows, ve) - want).abs().max() < 1e-4


@pytest.mark.parametrize("era", ERA_NAMES)
def test_the_merged_checkpoint_says_what_the_adapters_say(era: str, tmp_path: Path) -> None:
    rows = {"eval_tokens": 41943040} if era == "C20" else {}
    stored = write(tmp_path / "lm", era=era, user_config=rows, val_bpb=1.5)
    before = (tmp_path / "lm" / "model_000007.pt").read_bytes()
    lora = adapters(load_checkpoint(tmp_path / "lm")[0], targets=["attn.c_q", "mlp.c_proj"])
    lm = make_run(tmp_path / "run", tmp_path / "lm", best=lora)
    assert main(["merge", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model_000007.pt", "meta_000007.json", "tokenizer.pkl"}
    alike(tmp_path / "out", lm, lora)
    found, _, meta = load_checkpoint(tmp_path / "out")
    assert (found.era.name, meta["kind"], meta["step"]) == (era, load_checkpoint(tmp_path / "lm")[2]["kind"], 7)  # fmt: skip
    assert meta["val_bpb"] == 1.5  # type: ignore[typeddict-item]
    merged = torch.load(tmp_path / "out" / "model_000007.pt", weights_only=True)
    assert list(merged) == list(stored)
    changed = {key for key in stored if not torch.equal(stored[key], merged[key])}
    assert changed == {
        f"transformer.h.{i}.{name}.weight" for i in range(3) for name in lora.targets
    }
    assert (tmp_path / "lm" / "model_000007.pt").read_bytes() == before


def test_what_is_stored_in_halves_and_under_a_prefix(tmp_path: Path) -> None:
    """As torch.compile names tensors and a GPU stores them: adapted ones become fp32."""
    state = write(tmp_path / "lm")
    half = {f"_orig_mod.{k}": v.bfloat16() if v.ndim > 1 else v for k, v in state.items()}
    torch.save(half, tmp_path / "lm" / "model_000007.pt")
    lora = adapters(ruled_model("E", **vars(CONFIG)), targets=["attn.c_v"])
    lm = make_run(tmp_path / "run", tmp_path / "lm", last=lora)
    assert main(["merge", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    merged = torch.load(tmp_path / "out" / "model_000007.pt", weights_only=True)
    assert list(merged) == list(state)
    for key, tensor in merged.items():
        full = "c_v" in key or tensor.ndim == 1
        assert tensor.dtype == (torch.float32 if full else torch.bfloat16), key
    assert sum(t.untyped_storage().nbytes() for t in merged.values()) == sum(
        t.numel() * t.element_size() for t in merged.values()
    )
    alike(tmp_path / "out", lm, lora)


def test_which_adapters_at_which_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "lm")
    (tmp_path / "lm" / "token_bytes.pt").write_bytes(b"as it is")
    base = load_checkpoint(tmp_path / "lm")[0]
    best, last = adapters(base, seed=1), adapters(base, rank=2, seed=5)
    lm = make_run(tmp_path / "run", tmp_path / "lm", best=best, last=last)
    run = str(tmp_path / "run")
    capsys.readouterr()
    assert main(["merge", run, str(tmp_path / "a")]) == 0
    said = (
        f"{tmp_path}/a/model_000007.pt: {run}/lora-best.safetensors (rank 3) folded in at scale 1\n"
    )
    assert capsys.readouterr().out == said
    alike(tmp_path / "a", lm, best)
    assert (tmp_path / "a" / "token_bytes.pt").read_bytes() == b"as it is"
    assert main(["merge", run, str(tmp_path / "b"), "--checkpoint", "last", "--lora-scale", "0.5", "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {
        "model": f"{tmp_path}/b/model_000007.pt",
        "adapters": f"{run}/lora-last.safetensors",
        "scale": 0.5,
    }
    last.scale = 0.5
    alike(tmp_path / "b", lm, last)
    meta = json.loads((tmp_path / "b" / "meta_000007.json").read_text())
    assert meta["merged"]["scale"] == 0.5
    assert meta["merged"]["base"] == base.fingerprint()


def test_what_keys_cannot_tell_stays_told(tmp_path: Path) -> None:
    """A kind that the folder told, and softcap and rounding that the user told."""
    folder = tmp_path / "chatrl_checkpoints" / "d3"
    write(folder, era="C")
    make_run(tmp_path / "run", folder, best=adapters(load_checkpoint(folder)[0]))
    told = ["--softcap", "20", "--rope-bf16", "no"]
    assert main(["merge", str(tmp_path / "run"), str(tmp_path / "out"), *told]) == 0
    lm, _, meta = load_checkpoint(tmp_path / "out")
    assert (lm.era.softcap, lm.era.rope_bf16, meta["kind"]) == (20.0, False, "rl")


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line that a command is refused with."""
    capsys.readouterr()
    assert main([*map(str, args)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("LM:")]
    assert len(lines) == 1
    return lines[0]


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "lm")
    run, out = tmp_path / "run", tmp_path / "out"
    base = make_run(run, tmp_path / "lm")
    assert refused(capsys, "merge", tmp_path / "lm", out).startswith("error: no training run (")
    said = f"error: the run has no adapters: no lora-best.safetensors ({run}): train some with --lora 16"
    assert refused(capsys, "merge", run, out) == said
    save_lora(adapters(base), run / "lora-best.safetensors", "ab" * 32)
    said = f"error: adapters of an LM with hash abababababab, this one has {base.fingerprint()[:12]} ({run}/lora-best.safetensors): give"  # fmt: skip
    assert refused(capsys, "merge", run, out).startswith(said)
    assert not out.exists()
    save_lora(adapters(base), run / "lora-best.safetensors", base.fingerprint())
    assert "no lora-last.safetensors" in refused(capsys, "merge", run, out, "--checkpoint", "last")
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    said = f"error: there are files already ({out}): give a folder that is new or empty"
    assert refused(capsys, "merge", run, out) == said
    assert refused(capsys, "merge", run, out / "notes.txt").startswith("error: there are files")
    (tmp_path / "moved").mkdir()
    state = torch.load(tmp_path / "lm" / "model_000007.pt", weights_only=True)
    write(tmp_path / "moved")
    state["lm_head.weight"][0, 0] += 1.0
    torch.save(state, tmp_path / "moved" / "model_000007.pt")
    for verb in (["merge", run, tmp_path / "new"], ["inspect", run]):
        assert "hash" in refused(capsys, *verb, "--lm", tmp_path / "moved")
    assert not (tmp_path / "new").exists()
    with pytest.raises(OmniError, match="the adapters don't fit this LM"):
        write_merged(base, load_checkpoint(tmp_path / "lm")[2], adapters(ruled_model("A", n_layer=2)), tmp_path / "new")  # fmt: skip


@pytest.mark.parametrize(
    ("args", "said"),
    [(["merge", "run"], "merge needs OUT"), (["inspect", "lm", "out"], "inspect takes no OUT")],
)
def test_verbs_take_what_they_take(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}: omni-lm inspect PATH, or omni-lm merge")  # fmt: skip


def test_a_run_is_inspected_with_its_adapters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "lm")
    lora = adapters(load_checkpoint(tmp_path / "lm")[0], dropout=0.1, targets=["attn.c_q"])
    lm = make_run(tmp_path / "run", tmp_path / "lm", best=lora)

    def facts(*args: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["inspect", *args, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    bare, with_them = facts(str(tmp_path / "lm")), facts(str(tmp_path / "run"))
    assert bare["adapters"] is None
    found = with_them["adapters"]
    assert found["path"] == str(tmp_path / "run" / "lora-best.safetensors")
    assert (found["rank"], found["alpha"], found["dropout"]) == (3, 6.0, 0.1)
    assert (found["targets"], found["parameters"]) == (["attn.c_q"], 3 * 3 * (64 + 64))
    assert found["change"] == pytest.approx(relative_change(lm, lora))
    assert with_them["fingerprint"] == bare["fingerprint"] == lm.fingerprint()
    recipe = Recipe(lora_rank=3, lora_targets=("attn.c_q",), lora_dropout=True)
    want = training_memory(lm.config, Rows.of(8, 512), recipe, "E", lm.lm_head.weight.shape[0])
    assert with_them["memory"]["plain"]["total"] == want.total > bare["memory"]["plain"]["total"]
    assert main(["inspect", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    for part in ("lora-best.safetensors: rank 3, alpha 6, dropout 0.1, 1,152 parameters", "attn.c_q 0.", "and these adapters"):  # fmt: skip
        assert part in text
    make_run(tmp_path / "plain", tmp_path / "lm")
    assert facts(str(tmp_path / "plain"))["adapters"] is None


def test_relative_change_is_that_of_whole_matrices() -> None:
    lm = ruled_model("E")
    lora = adapters(lm)
    lora.scale = 0.5
    found = relative_change(lm, lora)
    for name in lora.targets:
        change = weight = 0.0
        for i in range(3):
            a, b = (t.detach() for t in lora.pairs(i)[name])
            change += float((lora.factor * b @ a).square().sum())
            weight += float(lm.get_submodule(f"transformer.h.{i}.{name}").weight.square().sum())  # type: ignore[operator,union-attr]
        assert found[name] == pytest.approx((change / weight) ** 0.5, rel=1e-5)
    assert set(relative_change(lm, Lora(lm.config, 2, 4)).values()) == {0.0}
