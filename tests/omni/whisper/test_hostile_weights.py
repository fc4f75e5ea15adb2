"""Whisper's weights may be anybody's files, or cut in shards: read, or one line each."""

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import RemoteEntryNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from speech_kit import tiny_encoder, tiny_whisper

from omni.errors import OmniError
from omni.whisper.ct2 import read_whisper
from omni.whisper.decoder import _forbidden
from omni.whisper.encoder import WhisperEncoder, encoder_hash
from omni.whisper.weights import Weights, find_weights, read_folder


def one_line(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(OmniError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def build(weights: Weights) -> WhisperEncoder:
    own = {k: v for k, v in weights.tensors.items() if k.startswith("encoder.")}
    return WhisperEncoder(weights.config, own, "tiny", "test")


# -- shards --------------------------------------------------------------------------------------


def shard(folder: Path, suffix: str = "safetensors") -> dict[str, str]:
    """The folder's one file cut into three, with the index that transformers writes."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places = {k: f"{stem}-0000{i % 3 + 1}-of-00003.{suffix}" for i, k in enumerate(sorted(whole))}
    for name in set(places.values()):
        mine = {key: whole[key] for key in whole if places[key] == name}
        save_file(mine, folder / name) if suffix == "safetensors" else torch.save(
            mine, folder / name
        )
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return places


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("decoder", [False, True])
def test_shards_are_read_as_the_one_file_is(tmp_path: Path, suffix: str, decoder: bool) -> None:
    folder = tiny_whisper(tmp_path)
    want = find_weights(str(folder), decoder).tensors
    shard(folder, suffix)
    got = find_weights(str(folder), decoder).tensors
    assert got.keys() == want.keys()
    assert encoder_hash(got) == encoder_hash(want)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".hidden.safetensors",
     "..\\x.safetensors", "x.pkl", "x" * 5000],
)  # fmt: skip
def test_an_index_can_not_leave_its_folder(tmp_path: Path, name: str) -> None:
    folder = tiny_encoder(tmp_path / "f")
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "x.safetensors")
    places = {**shard(folder), "encoder.x": name}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    one_line("no shard beside it", lambda: find_weights(str(folder)))


@pytest.mark.parametrize("damage", ["gone", "cut", "key", "index", "map", "other"])
def test_damaged_shards(tmp_path: Path, damage: str) -> None:
    folder = tiny_encoder(tmp_path)
    places = shard(folder)
    index = folder / "model.safetensors.index.json"
    file = folder / places["encoder.conv1.weight"]
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "key":
        save_file({"encoder.y": torch.zeros(1)}, file)
    elif damage == "index":
        index.write_text("{" * 100_000)
    elif damage == "map":
        index.write_text(json.dumps({"weight_map": {"encoder.conv1.weight": 3}}))
    else:
        index.write_text("{}")
    one_line("weights can't be read", lambda: find_weights(str(folder)))


# -- config and tensors --------------------------------------------------------------------------

ODD = st.one_of(
    st.sampled_from(
        [None, True, -1, 0, 1, 3, 10**6, 10**12, 10**30, 1.5, "", "gelu", [], {}, [[]]]
    ),
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s, max_size=3)),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), delete=st.booleans(), value=ODD)
def test_any_field_of_the_config_may_be_anything(
    tmp_path: Path, data: st.DataObject, delete: bool, value: Any
) -> None:
    folder = tmp_path / "f"
    if not folder.exists():
        tiny_encoder(folder)
        (tmp_path / "whole.json").write_text((folder / "config.json").read_text())
    config = json.loads((tmp_path / "whole.json").read_text())
    key = data.draw(st.sampled_from(sorted(config)))
    if delete:
        del config[key]
    else:
        config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with contextlib.suppress(OmniError):  # anything else fails the test
        build(read_folder(folder, "test"))


@pytest.mark.parametrize("key", ["decoder_start_token_id", "bos_token_id", "eos_token_id"])
def test_an_id_that_is_null_is_one_that_is_not_there(tmp_path: Path, key: str) -> None:
    folder = tiny_encoder(tmp_path / "f")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: None}))
    assert build(read_folder(folder, "test")).d_model == config["d_model"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"model_type":"whisper"}']
)
def test_a_config_that_is_none(tmp_path: Path, content: bytes) -> None:
    folder = tiny_encoder(tmp_path)
    (folder / "config.json").write_bytes(content)
    one_line(r"config\.json", lambda: find_weights(str(folder)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["encoder.conv1.bias", "encoder.layers.1.fc2.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, key: str, value: float, dtype: torch.dtype
) -> None:
    folder = tiny_encoder(tmp_path)
    tensors = {k: t.to(dtype) for k, t in load_file(folder / "model.safetensors").items()}
    tensors[key].view(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors")
    one_line(f"{key} holds numbers that are not finite", lambda: find_weights(str(folder)))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("encoder.conv1.weight"),
        lambda t: t.pop("encoder.embed_positions.weight"),
        lambda t: t.update({"encoder.conv1.weight": torch.zeros(3)}),
        lambda t: t.update({"encoder.conv1.weight": torch.zeros(16, 0, 3)}),
        lambda t: t.update({"encoder.layers.0.fc1.bias": torch.zeros(1, 2)}),
        lambda t: t.update({"encoder.layers.7.fc1.bias": torch.zeros(32)}),
        lambda t: t.update({"encoder.conv1.bias": torch.zeros(16, dtype=torch.int64)}),
        lambda t: t.clear(),
    ],
)
def test_tensors_of_another_shape_or_kind(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    folder = tiny_encoder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    one_line("don't fit|no float", lambda: build(find_weights(str(folder))))


# -- what lies beside ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["[]", "{", '{"suppress_tokens": "x"}', "[" * 100_000,
    '{"suppress_tokens": {"a": 1}}', '{"suppress_tokens": [1, "x"]}'])  # fmt: skip
def test_lists_of_forbidden_ids_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    names = ("suppress_tokens", "suppress_ids")
    one_line(r"generation_config\.json", lambda: _forbidden(tmp_path, names, 64))


# -- CTranslate2 ---------------------------------------------------------------------------------


def text(name: bytes) -> bytes:
    return struct.pack("<H", len(name) + 1) + name + b"\0"


def ct2(*variables: bytes, aliases: bytes = struct.pack("<I", 0)) -> bytes:
    head = struct.pack("<I", 6) + text(b"WhisperSpec") + struct.pack("<II", 3, len(variables))
    return head + b"".join(variables) + aliases


def variable(name: bytes, shape: tuple[int, ...], data: bytes, dtype: int = 0) -> bytes:
    dims = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return text(name) + dims + struct.pack("<BI", dtype, len(data)) + data


@pytest.mark.parametrize(
    "blob",
    [
        ct2(variable(b"encoder/conv1/weight", (2**31, 2**31, 2**31), b"\0" * 4)),
        ct2(variable(b"x", (1,), b"\0" * 3)),
        ct2(variable(b"x", (1,), b"\0" * 4, dtype=9)),
        ct2(variable(b"x", (1,) * 200, b"\0" * 4)),
        ct2(variable(b"\xff", (1,), b"\0" * 4)),
        ct2(aliases=struct.pack("<I", 1) + text(b"a") + text(b"nowhere")),
        ct2(aliases=struct.pack("<I", 2**32 - 1)),
        ct2(variable(b"encoder/conv1/weight", (1,), b"\0" * 4)),
    ],
)
def test_a_ctranslate2_file_of_absurd_sizes(tmp_path: Path, blob: bytes) -> None:
    one_line("CTranslate2", lambda: read_whisper(blob))
    (tmp_path / "model.bin").write_bytes(blob)
    one_line("CTranslate2", lambda: read_folder(tmp_path, "test"))


# -- hubs ----------------------------------------------------------------------------------------


class MissingError(RemoteEntryNotFoundError):
    """What a hub answers for a file that a repository lacks, without the answer itself."""

    def __init__(self) -> None:
        Exception.__init__(self, "404")


def test_a_hub_gives_an_index_and_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, asked = tiny_encoder(tmp_path / "hub"), []
    want = encoder_hash(find_weights(str(hub)).tensors)
    places = shard(hub)

    def download(name: str, file: str, etag_timeout: float) -> str:
        asked.append(file)
        if not (hub / file).is_file():
            raise MissingError
        return str(hub / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    found = find_weights("someone/whisper-medium")
    assert encoder_hash(found.tensors) == want
    assert set(places.values()) < set(asked)
    assert "pytorch_model.bin" not in asked


def test_a_cache_without_all_shards_is_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tiny_encoder(tmp_path)
    places = shard(cache)

    def cached(name: str, file: str) -> str | None:
        return str(cache / file) if (cache / file).is_file() else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    assert "cache" in find_weights("someone/whisper-medium").source
    (cache / places["encoder.conv1.weight"]).unlink()
    one_line("cache .not there.", lambda: find_weights("someone/whisper-medium"))
