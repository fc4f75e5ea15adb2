"""Finding and reading checkpoints: every layout, every name, and each kind of bad input."""

import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nanochat_kit import CONFIG, small_encoding, write
from nanochat_reference import ids_by_rule, ruled_model, ruled_state

from omni.errors import OmniError
from omni.nanochat import Tokenizer, from_state_dict, load_checkpoint
from omni.nanochat.config import config_dict
from omni.nanochat.discovery import DEMO, choose_files, find_checkpoint, kind_from_meta


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A $NANOCHAT_BASE_DIR with the tokenizer where nanochat puts it."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "nano"))
    Tokenizer(small_encoding()).save(tmp_path / "nano" / "tokenizer")
    return tmp_path / "nano"


# -- names ---------------------------------------------------------------------------------------


def test_auto_takes_rl_then_sft_then_base_of_the_largest_depth_and_newest_step(base: Path) -> None:
    def auto() -> str:
        return str(find_checkpoint("auto").model.relative_to(base).with_suffix(""))

    for tag, step in (("d12", 5), ("d4", 90), ("d12", 21), ("d12", 3)):
        write(base / "base_checkpoints" / tag, step, tokenizer=False)
    assert auto() == "base_checkpoints/d12/model_000021"
    write(base / "chatsft_checkpoints" / "d4", 9, tokenizer=False)
    assert auto() == "chatsft_checkpoints/d4/model_000009"
    write(base / "chatrl_checkpoints" / "d4", 1, tokenizer=False)
    write(base / "chatrl_checkpoints" / "my-run", 1000, tokenizer=False)
    assert auto() == "chatrl_checkpoints/d4/model_000001"
    (base / "chatrl_checkpoints" / "d30").mkdir()  # an empty folder is no checkpoint
    assert auto() == "chatrl_checkpoints/d4/model_000001"


def test_tags_with_and_without_a_kind(base: Path) -> None:
    write(base / "base_checkpoints" / "d12", 5, tokenizer=False)
    write(base / "chatsft_checkpoints" / "d12", 6, tokenizer=False)
    write(base / "mid_checkpoints" / "tiny-x.2", 8, tokenizer=False)
    assert find_checkpoint("d12").kind == "sft"
    assert find_checkpoint("base:d12").model.name == "model_000005.pt"
    assert find_checkpoint("tiny-x.2").kind == "mid"
    with pytest.raises(OmniError, match=r"no checkpoint sft:d20; there are sft:d12, mid:tiny-x\.2"):
        find_checkpoint("sft:d20")


def test_auto_without_a_checkpoint_is_the_demo_lm_and_says_so(
    base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "demo")
    monkeypatch.setattr("omni.nanochat.discovery.DEMO", tmp_path / "demo")
    assert find_checkpoint("auto").model.parent == tmp_path / "demo"
    said = capsys.readouterr().err.strip()
    assert said == f"no nanochat checkpoint in {base}: the demo LM is used"
    assert find_checkpoint("demo").model.parent == tmp_path / "demo"


def test_every_folder_above_a_checkpoint_and_the_file_itself_are_taken(base: Path) -> None:
    folder = base / "chatsft_checkpoints" / "d4"
    write(folder, 6, tokenizer=False)
    write(folder, 15, tokenizer=False)
    for place in (base.parent, base, base / "chatsft_checkpoints", folder):
        files = find_checkpoint(place)
        assert (files.model.name, files.kind) == ("model_000015.pt", "sft")
        assert files.tokenizer == base / "tokenizer" / "tokenizer.pkl"
    assert find_checkpoint(folder / "model_000006.pt").meta.name == "meta_000006.json"


def test_hub_ids_go_from_cache_to_hub_and_report_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OmniError, match=r"Hugging Face cache \(.*Hugging Face hub \(") as caught:
        find_checkpoint("nobody/nothing-here")  # tests run with the hub switched off
    assert "nobody/nothing-here" in str(caught.value)
    write(tmp_path / "snap")
    monkeypatch.setattr("omni.nanochat.discovery._hf_cache", lambda name: tmp_path / "snap")
    assert "Hugging Face cache" in find_checkpoint("karpathy/nanochat-d32").source
    assert choose_files(
        ["README.md", "model_000650.pt", "model_001200.pt", "meta_001200.json", "tokenizer.pkl"]
    ) == ["model_001200.pt", "meta_001200.json", "tokenizer.pkl"]
    with pytest.raises(OmniError, match=r"no model_\*\.pt"):
        choose_files(["config.json"])


def test_the_hub_gives_the_newest_step_and_modelscope_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both hubs played by a folder: what is asked for, and in which order."""
    hub, asked = tmp_path / "hub", []
    write(hub / "sft", 650, tokenizer=False)
    write(hub / "sft", 90, tokenizer=False)
    Tokenizer(small_encoding()).save(hub)
    names = [str(p.relative_to(hub)) for p in hub.rglob("*") if p.is_file()]

    def model_info(self: object, name: str, timeout: float) -> SimpleNamespace:
        assert timeout <= 10
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in names])

    def download(name: str, file: str, etag_timeout: float) -> str:
        asked.append(file)
        return str(hub / file)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    files = find_checkpoint("someone/nano")
    assert files.model == hub / "sft" / "model_000650.pt"
    assert sorted(asked) == ["sft/meta_000650.json", "sft/model_000650.pt", "tokenizer.pkl"]

    monkeypatch.setenv("NANOCHAT_MS_ID", "other/nano")
    snapshot = SimpleNamespace(snapshot_download=lambda name, allow_patterns: tmp_path / "ms")
    monkeypatch.setitem(sys.modules, "modelscope", snapshot)
    write(tmp_path / "ms", 5)
    files = find_checkpoint("someone/nano")
    assert (files.model.name, files.source) == ("model_000005.pt", "ModelScope, other/nano")
    monkeypatch.setitem(sys.modules, "modelscope", None)  # not installed: the next source is asked
    assert find_checkpoint("someone/nano").model.name == "model_000650.pt"


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere", "x.pt/y.pt", "foo:d12", ""])
def test_names_of_nothing(name: str, base: Path) -> None:
    with pytest.raises(OmniError, match=r"no such nanochat checkpoint|no model_\*\.pt"):
        find_checkpoint(name or str(base / "tokenizer"))


# -- reading -------------------------------------------------------------------------------------


def test_a_checkpoint_side_by_side_loads_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = write(tmp_path, val_bpb=0.9, user_config={"depth": 3})
    lm, tokenizer, meta = load_checkpoint(tmp_path)
    ids = ids_by_rule(30, 266)
    assert torch.equal(lm(ids), from_state_dict(state, config_dict(CONFIG))(ids))
    assert (meta["kind"], meta["step"], lm.era.name) == ("base", 7, "E")
    assert tokenizer.special("assistant_end") == 261
    assert capsys.readouterr().err.count("\n") == 1


def test_compiled_prefix_and_bf16_files(tmp_path: Path) -> None:
    state = write(tmp_path)
    want = load_checkpoint(tmp_path)[0]
    mixed = {
        f"_orig_mod.{k}": t.bfloat16() if "wte" in k or "value_embeds" in k else t
        for k, t in state.items()
    }
    torch.save(mixed, tmp_path / "model_000007.pt")
    lm = load_checkpoint(tmp_path)[0]
    assert {p.dtype for p in lm.parameters()} == {torch.float32}
    assert (lm(ids_by_rule(30, 266)) - want(ids_by_rule(30, 266))).abs().mean() < 0.01
    # A prefix, not a set of characters: a key that only looks alike stays unknown.
    torch.save({f"orig_mod.{k}": t for k, t in state.items()}, tmp_path / "model_000007.pt")
    with pytest.raises(OmniError, match="lacks the key"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("meta", "kind"),
    [
        ({"user_config": {"depth": 20}, "val_bpb": 0.8}, "base"),
        ({"loop_state": {}, "user_config": {}}, "base"),
        ({"val_loss": 1.0, "mmlu_acc": 0.3}, "sft"),
        ({"val_bpb": 0.5, "user_config": {"mmlu_epochs": 3}}, "sft"),
        ({}, "rl"),
        ({"kind": "base"}, "base"),
    ],
)
def test_kind_from_what_each_stage_writes(meta: dict[str, Any], kind: str) -> None:
    assert kind_from_meta({"step": 1, "model_config": {}, **meta}) == kind


# -- which era -----------------------------------------------------------------------------------


def test_c_against_c20(tmp_path: Path) -> None:
    state, fields = ruled_state("C", CONFIG), config_dict(CONFIG)
    with pytest.warns(UserWarning, match="softcap=20.*rope_bf16=False"):
        lm = from_state_dict(state, fields)
    assert (lm.era.name, lm.era.softcap, lm.era.rope_bf16) == ("C", 15.0, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm = from_state_dict(state, fields, {"eval_tokens": 41_943_040})
        assert (lm.era.name, lm.era.softcap, lm.era.rope_bf16) == ("C20", 20.0, False)
        lm = from_state_dict(state, fields, softcap=20, rope_bf16=True)
        assert (lm.era.name, lm.era.softcap, lm.era.rope_bf16) == ("C20", 20.0, True)
        for era in ("A", "B", "D", "E"):
            assert from_state_dict(ruled_state(era, CONFIG), fields).era.name == era
    write(tmp_path, era="C", user_config={"eval_tokens": 41_943_040, "depth": 3})
    assert load_checkpoint(tmp_path)[0].era.name == "C20"
    write(tmp_path, era="C", softcap=20, rope_bf16=True)  # the user's own note in the meta
    era = load_checkpoint(tmp_path)[0].era
    assert (era.name, era.rope_bf16) == ("C20", True)


@pytest.mark.parametrize("era", ["A", "B", "C", "D", "E"])
@pytest.mark.filterwarnings("ignore:eras C and C20")
def test_any_missing_unknown_or_misshapen_key_is_named_with_the_era(era: str) -> None:
    fields, whole = config_dict(CONFIG), ruled_state(era, CONFIG)
    for key in whole:
        part = {k: t for k, t in whole.items() if k != key}
        with pytest.raises(OmniError) as caught:
            from_state_dict(part, fields)
        # Without its lambdas (say) it looks like another era: then that era's own lack is told.
        assert "era" in str(caught.value) or "width" in str(caught.value)
        odd = {**whole, key: torch.zeros(5, 7, 3)}
        with pytest.raises(OmniError):
            from_state_dict(odd, fields)
    with pytest.raises(OmniError, match="lacks the key lm_head.weight.*nearest era " + era):
        from_state_dict({k: t for k, t in whole.items() if k != "lm_head.weight"}, fields)
    with pytest.raises(OmniError, match=f"unknown key value_embed_A.*nearest era {era}"):
        from_state_dict({**whole, "value_embed_A.weight": torch.zeros(2)}, fields)
    wrong = {**whole, "lm_head.weight": torch.zeros(3, 64)}
    with pytest.raises(OmniError, match=r"lm_head.weight has the shape \(3, 64\)"):
        from_state_dict(wrong, fields)


def test_the_bigram_variant_is_refused_by_name() -> None:
    state = {
        **ruled_state("C", CONFIG),
        "bigram_embed.weight": torch.zeros(9, 64),
        "bigram_lambdas": torch.zeros(3),
    }
    with pytest.raises(OmniError, match=r"bigram variant of era C.*bigram_embed"):
        from_state_dict(state, config_dict(CONFIG))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_head": None}, "lacks n_head"),
        ({"n_head": 3}, "don't divide evenly"),
        ({"n_kv_head": 3}, "don't divide evenly"),
        ({"n_layer": 4}, r"lacks the key transformer\.h\.3"),
        ({"n_layer": "3"}, "n_layer is '3'"),
        ({"vocab_size": 400}, "320 rows for a vocabulary of 400"),
        ({"window_pattern": "SXL"}, "other letters than S and L"),
    ],
)
def test_sizes_that_dont_fit(change: dict[str, Any], message: str) -> None:
    fields = {**config_dict(CONFIG), **change}
    with pytest.raises(OmniError, match=message):
        from_state_dict(
            ruled_state("B", CONFIG), {k: v for k, v in fields.items() if v is not None}
        )


# -- bad files, one line each --------------------------------------------------------------------


def fails(folder: Path, match: str) -> None:
    with pytest.raises(OmniError, match=match) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_truncated_model(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "model_000007.pt"
    whole = file.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        file.write_bytes(whole[:size])
        fails(tmp_path, "truncated or no torch checkpoint")


class Exploit:
    """Pickles to a call that leaves a mark on the disk."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def test_model_with_code_in_it(tmp_path: Path) -> None:
    state = write(tmp_path)
    mark = tmp_path / "mark"
    torch.save({**state, "x": Exploit(mark)}, tmp_path / "model_000007.pt")
    fails(tmp_path, "could run code; not loaded")
    by_hand = f"cposix\nmkdir\n(V{mark}\ntR.".encode()
    (tmp_path / "model_000007.pt").write_bytes(by_hand)
    fails(tmp_path, "not loaded|no torch checkpoint")
    assert not mark.exists()


def test_gpt2_checkpoint(tmp_path: Path) -> None:
    write(tmp_path)
    gpt2 = {
        "transformer.wte.weight": torch.zeros(320, 64),
        "transformer.wpe.weight": torch.zeros(64, 64),
        "transformer.h.0.attn.c_attn.weight": torch.zeros(64, 192),
    }
    torch.save(gpt2, tmp_path / "model_000007.pt")
    fails(tmp_path, "GPT-2 checkpoint")


def test_other_contents(tmp_path: Path) -> None:
    state = write(tmp_path)
    torch.save({"model": state, "step": 3}, tmp_path / "model_000007.pt")
    fails(tmp_path, "no plain state dict")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "model_000007.pt")
    fails(tmp_path, "unknown key extra")


def test_missing_or_damaged_meta(tmp_path: Path) -> None:
    write(tmp_path)
    meta = tmp_path / "meta_000007.json"
    meta.write_text("{")
    fails(tmp_path, "damaged JSON")
    meta.write_text('{"step": 7}')
    fails(tmp_path, "no model_config")
    meta.unlink()
    fails(tmp_path, r"no meta_000007\.json beside the model")


def test_missing_or_foreign_tokenizer(tmp_path: Path) -> None:
    write(tmp_path, tokenizer=False)
    fails(tmp_path, r"no tokenizer\.pkl for the model")
    write(tmp_path)
    fields = {**config_dict(CONFIG), "vocab_size": 300}
    (tmp_path / "meta_000007.json").write_text(json.dumps({"model_config": fields}))
    fails(tmp_path, "tokenizer has 266 tokens, the model 300")


@pytest.mark.skipif(not list(DEMO.glob("model_*.pt")), reason="the demo LM is not built")
def test_the_demo_lm_is_a_whole_era_e_chat_model_in_upstreams_layout() -> None:
    lm, tokenizer, meta = load_checkpoint("demo")
    assert (lm.era.name, meta["kind"]) == ("E", "sft")
    assert tokenizer.vocab_size == lm.config.vocab_size
    assert tokenizer.has_special("assistant_end")
    config = lm.config
    assert lm.state_dict().keys() == ruled_model("E", **vars(config)).state_dict().keys()
