"""A checkpoint in nanochat's own layout with adapters folded in, for code that knows no adapters.

Such an LM hears everywhere: what it says to text alone is changed too. Must not know what a run is,
nor where the adapters come from.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.errors import OmniError
from omni.formats.files import atomic, write_whole
from omni.nanochat.build import strip_wrappers
from omni.nanochat.checkpoint import read_state
from omni.nanochat.config import ModelMeta, config_dict
from omni.nanochat.discovery import find_checkpoint
from omni.nanochat.lora import Lora, merged_state
from omni.nanochat.model import NanoChat

_TOKEN_BYTES = (
    "token_bytes.pt"  # beside nanochat's tokenizer: what its bits per byte are counted by
)


def write_merged(lm: NanoChat, meta: ModelMeta, lora: Lora, out: Path) -> Path:
    """Write `model_<step>.pt`, `meta_<step>.json` and the tokenizer's files into a new folder.

    Adapted matrices are stored in fp32, whatever the checkpoint stores (nanochat casts them where
    it computes); every other tensor is the checkpoint's own. The meta is the checkpoint's, with
    "kind", "softcap" and "rope_bf16" where they were told, and "merged": what was folded in.

    Args:
        lm, meta: as `load_checkpoint` gives them.
        lora: at the scale that it is to be folded in with.
        out: a folder that is not there yet, or an empty one.

    Returns:
        The model file. It is written last: a folder without it is no checkpoint.

    Raises:
        OmniError: there are files already, adapters of other sizes, or no room.
    """
    refuse_files(out)
    lora.check_fit(lm.config)
    files = find_checkpoint(meta["path"])
    state = merged_state(lm, lora, strip_wrappers(read_state(files.model)))
    for name in (files.tokenizer.name, _TOKEN_BYTES):
        source = files.tokenizer.parent / name
        if source.is_file():
            write_whole(out / name, source.read_bytes())
    step = _step(meta, files.model)
    text = json.dumps(_meta(lm, meta, lora, step), indent=2) + "\n"
    write_whole(out / f"meta_{step:06d}.json", text.encode())
    model = out / f"model_{step:06d}.pt"
    _save(model, state)
    return model


def refuse_files(out: Path) -> None:
    """A checkpoint goes into a folder of its own.

    Raises:
        OmniError: it holds files, is a file, or can't be looked into.
    """
    try:
        taken = out.is_file() or (out.exists() and any(out.iterdir()))
    except OSError as error:
        raise OmniError(f"can't look into it ({error.strerror or error})", str(out)) from error
    if taken:
        raise OmniError("there are files already", str(out), "give a folder that is new or empty")


def _step(meta: ModelMeta, model: Path) -> int:
    """The checkpoint's step, from its meta or its name; 0 where neither tells."""
    told = meta.get("step")
    digits = model.stem.rpartition("_")[2]
    return told if told is not None else int(digits) if digits.isdecimal() else 0


def _meta(lm: NanoChat, meta: ModelMeta, lora: Lora, step: int) -> dict[str, Any]:
    """What `meta_<step>.json` says."""
    ours = ("path", "source", "model_config")
    return {
        **{key: value for key, value in meta.items() if key not in ours},
        "step": step,
        "model_config": config_dict(lm.config),
        "merged": {
            "rank": lora.rank,
            "alpha": lora.alpha,
            "targets": list(lora.targets),
            "scale": lora.scale,
            "base": lm.fingerprint(),
        },
    }


def _save(file: Path, state: dict[str, Tensor]) -> None:
    """As nanochat saves: a plain dict of tensors, each with a storage of its own."""
    whole = io.BytesIO()  # torch would turn a full disk into an error without errno
    torch.save({key: tensor.clone().contiguous() for key, tensor in state.items()}, whole)
    with atomic(file) as handle:
        handle.write(whole.getbuffer())
