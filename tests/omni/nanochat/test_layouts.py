"""nanochat folders as people have them: other file formats, prefixes, hub layouts, and no home."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from nanochat_kit import CONFIG, small_encoding, write

from omni.errors import OmniError
from omni.nanochat import Tokenizer, load_checkpoint
from omni.nanochat.config import config_dict
from omni.nanochat.discovery import choose_files, find_checkpoint


@pytest.fixture
def plain(tmp_path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a checkpoint, and the fingerprint it has as nanochat wrote it."""
    state = write(tmp_path / "plain")
    return state, load_checkpoint(tmp_path / "plain")[0].fingerprint()


def as_safetensors(folder: Path, state: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(state, folder / "model_000007.safetensors")


def as_single_safetensors(folder: Path, state: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(state, folder / "model.safetensors")


def as_pytorch_model(folder: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def as_shards(folder: Path, state: dict[str, torch.Tensor]) -> None:
    places = {}
    for i, key in enumerate(sorted(state)):
        places[key] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
    for name in set(places.values()):
        mine = {key: state[key] for key in state if places[key] == name}
        safetensors.torch.save_file(mine, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    "save", [as_safetensors, as_single_safetensors, as_pytorch_model, as_shards]
)
@pytest.mark.parametrize("bare", [False, True])
def test_other_file_formats_load_to_the_same_model(
    tmp_path: Path,
    plain: tuple[dict[str, torch.Tensor], str],
    save: Callable[[Path, dict[str, torch.Tensor]], None],
    bare: bool,
) -> None:
    """With nanochat's meta beside it, or its sizes alone in a config.json."""
    state, fingerprint = plain
    folder = tmp_path / "other"
    write(folder)
    (folder / "model_000007.pt").unlink()
    save(folder, {key: t.contiguous() for key, t in state.items()})
    if bare and save is not as_safetensors:
        (folder / "meta_000007.json").unlink()
        (folder / "config.json").write_text(json.dumps(config_dict(CONFIG)))
    lm, _, meta = load_checkpoint(folder)
    assert lm.fingerprint() == fingerprint
    assert meta["kind"] in ("sft", "rl", "base")


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."],
)
def test_prefixes_of_wrappers(
    tmp_path: Path, plain: tuple[dict[str, torch.Tensor], str], prefix: str
) -> None:
    state, fingerprint = plain
    write(tmp_path / "w")
    wrapped = {f"{prefix}{key}": t for key, t in state.items()}
    torch.save(wrapped, tmp_path / "w" / "model_000007.pt")
    assert load_checkpoint(tmp_path / "w")[0].fingerprint() == fingerprint
    torch.save({**state, **wrapped}, tmp_path / "w" / "model_000007.pt")
    with pytest.raises(OmniError, match="twice, with and without a prefix"):
        load_checkpoint(tmp_path / "w")


def test_a_folder_of_transformers_says_what_is_expected_and_what_was_found(tmp_path: Path) -> None:
    converted = {
        "model.embed_tokens.weight": torch.zeros(320, 64),
        "model.layers.0.self_attn.q_proj.weight": torch.zeros(64, 64),
        "lm_head.weight": torch.zeros(320, 64),
    }
    safetensors.torch.save_file(converted, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(OmniError, match=r"no meta_.*beside the model|no meta\.json"):
        load_checkpoint(tmp_path)
    config = {"model_type": "nanochat", "hidden_size": 64, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OmniError, match=r"no tokenizer\.pkl.*tokenizer\.json is no such file"):
        load_checkpoint(tmp_path)
    Tokenizer(small_encoding()).save(tmp_path)
    with pytest.raises(OmniError, match=r"expected nanochat's model_config.*found hidden_size"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config_dict(CONFIG)))
    with pytest.raises(OmniError, match=r"expected transformer\.wte\.weight, found model\.embed"):
        load_checkpoint(tmp_path)


def test_a_folder_of_something_else_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    for name in ("optim_000007.pt", "readme.md"):
        (tmp_path / name).touch()
    with pytest.raises(OmniError, match=r"no model_\*\.pt.*found optim_000007\.pt, readme\.md"):
        find_checkpoint(tmp_path)


# -- hubs ----------------------------------------------------------------------------------------


def listing(*folders: str) -> list[str]:
    names = [f"{f}/{n}" for f in folders for n in ("model_000650.pt", "meta_000650.json")]
    return ["README.md", *names, "tokenizer.pkl"]


@pytest.mark.parametrize(
    ("folders", "want"),
    [
        (("base_checkpoints/d20", "chatsft_checkpoints/d20"), "chatsft_checkpoints/d20"),
        (("chatsft_checkpoints/d20", "base_checkpoints/d34"), "chatsft_checkpoints/d20"),
        (("base", "sft"), "sft"),
        (("sft", "mid", "zbase"), "sft"),
        (("d20/base", "d20/sft"), "d20/sft"),
        (("nano/base_checkpoints/d4", "nano/chatrl_checkpoints/d4"), "nano/chatrl_checkpoints/d4"),
        (("base_checkpoints/d4", "base_checkpoints/d12"), "base_checkpoints/d12"),
    ],
)
def test_a_repository_yields_what_a_local_folder_of_its_files_does(
    tmp_path: Path, folders: tuple[str, ...], want: str
) -> None:
    names = listing(*folders)
    chosen = choose_files(names)
    assert chosen == [f"{want}/model_000650.pt", f"{want}/meta_000650.json", "tokenizer.pkl"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path).model == tmp_path / chosen[0]


def test_a_later_base_step_is_no_reason_to_leave_sft() -> None:
    names = [*listing("chatsft_checkpoints/d20"), "base_checkpoints/d20/model_021400.pt"]
    names.append("base_checkpoints/d20/meta_021400.json")
    assert choose_files(names)[0] == "chatsft_checkpoints/d20/model_000650.pt"


def test_sharded_and_unnumbered_models_of_a_repository() -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    names = ["config.json", "model.safetensors.index.json", "tokenizer.pkl", *shards]
    assert choose_files(names) == [
        "model.safetensors.index.json", "config.json", "tokenizer.pkl", *shards,
    ]  # fmt: skip
    names = ["meta.json", "pytorch_model.bin", "tokenizer/tokenizer.pkl"]
    assert sorted(choose_files(names)) == sorted(names)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["model_000001.pt", "tokenizer.pkl"], "no meta_000001"),
        (["model_000001.pt", "meta_000001.json"], r"no tokenizer\.pkl"),
        (["../model_000001.pt", "/etc/model_000001.pt"], "repository holds no model"),
        ([], "repository holds no model"),
    ],
)
def test_a_repository_that_lacks_a_part(names: list[str], match: str) -> None:
    with pytest.raises(OmniError, match=match):
        choose_files(names)


# -- home ----------------------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME and no entry in passwd, as in a container started with a bare user number."""
    monkeypatch.delenv("NANOCHAT_BASE_DIR", raising=False)
    monkeypatch.delenv("HOME")

    def getpwuid(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", getpwuid)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_auto_goes_on_to_the_demo_lm(capsys: pytest.CaptureFixture[str]) -> None:
    assert "demo" in find_checkpoint("auto").source
    assert capsys.readouterr().err == (
        "no nanochat checkpoint in ~/.cache/nanochat: the demo LM is used\n"
    )
    for name in ("~/x", "~nobody-of-this-name/x", "d12"):
        with pytest.raises(OmniError, match=r"no such nanochat checkpoint|no checkpoint d12"):
            find_checkpoint(name)


def refuse(*_: object, **__: object) -> Any:
    raise PermissionError(13, "Permission denied", "/root/.cache/nanochat")


def test_the_home_of_somebody_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("omni.nanochat.discovery._best_in", refuse)
    assert "demo" in find_checkpoint("auto").source
    assert capsys.readouterr().err.startswith("can't look for a nanochat checkpoint in")
    with pytest.raises(OmniError, match=r"can't look for the checkpoint \(Permission denied\)"):
        find_checkpoint(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "closed" / "nanochat"))
    write(tmp_path / "closed" / "nanochat" / "base_checkpoints" / "d4")
    (tmp_path / "closed").chmod(0)
    try:
        assert "demo" in find_checkpoint("auto").source
        with pytest.raises(OmniError, match=r"Permission denied|no checkpoint"):
            find_checkpoint("d4")
    finally:
        (tmp_path / "closed").chmod(0o755)
