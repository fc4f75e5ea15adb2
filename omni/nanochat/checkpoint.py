"""Load a nanochat checkpoint from disk: model, tokenizer and meta that belong together.

Runs nothing that the files hold: tensors through torch's weights-only reader, the tokenizer
through its own restricted one. Must not know the forward pass (model.py) or the search order
(discovery.py).
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.errors import OmniError
from omni.nanochat.build import from_state_dict
from omni.nanochat.discovery import CheckpointFiles, find_checkpoint, kind_from_meta
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer


def load_checkpoint(
    path_or_name: str | Path,
    device: str | torch.device = "cpu",
    softcap: float | None = None,
    rope_bf16: bool | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[NanoChat, Tokenizer, dict[str, Any]]:
    """A frozen LM, its tokenizer, and its meta.

    Args:
        path_or_name: as `discovery.find_checkpoint` takes it; "demo" is the LM shipped with this
            project, "auto" the user's own if there is one.
        device: where the model goes.
        softcap: override, see `from_state_dict`; None takes the meta's "softcap", if it has one.
        rope_bf16: override, see `from_state_dict`; None takes the meta's "rope_bf16".
        dtype: of the matrices; None means bfloat16 on a CUDA device and float32 elsewhere.

    Returns:
        (model, tokenizer, meta). `meta` is the checkpoint's own plus "kind" ("base", "mid", "sft"
        or "rl"), "path" (of the model file) and "source" (how it was found).

    Raises:
        OmniError: nothing there, a damaged or foreign file, a key that fits no era, or a
            tokenizer of another model.
    """
    files = find_checkpoint(path_or_name)
    meta = read_meta(files.meta)
    tokenizer = Tokenizer.load(files.tokenizer)
    _check_tokenizer(tokenizer, files, meta)
    if dtype is None:
        dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    state = read_state(files.model)
    # nanochat writes neither; a user whose checkpoint is ambiguous can, once and for all commands.
    softcap = meta.get("softcap") if softcap is None else softcap
    rope_bf16 = meta.get("rope_bf16") if rope_bf16 is None else rope_bf16
    try:
        lm = from_state_dict(
            state, meta["model_config"], meta.get("user_config"), softcap, rope_bf16, dtype
        )
    except OmniError as error:
        where = f"{files.model}, {error.where}" if error.where else str(files.model)
        raise OmniError(error.what, where, error.mend) from error
    kind = files.kind or kind_from_meta(meta)
    c = lm.config
    print(
        f"LM: {files.source}, {files.model} ({kind}, era {lm.era.name}, depth {c.n_layer}, "
        f"width {c.n_embd})",
        file=sys.stderr,
    )
    meta = {**meta, "kind": kind, "path": str(files.model), "source": files.source}
    return lm.to(device), tokenizer, meta


def read_meta(file: Path) -> dict[str, Any]:
    """The checkpoint's meta; holds at least `model_config`.

    Raises:
        OmniError: no JSON, or no `model_config` in it.
    """
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise OmniError(
            f"the checkpoint's meta can't be read ({error})", where=str(file), mend="copy it again"
        ) from error
    if not isinstance(meta, dict) or not isinstance(meta.get("model_config"), dict):
        raise OmniError(
            "the checkpoint's meta has no model_config",
            where=str(file),
            mend="use the meta_*.json that nanochat wrote beside the model",
        )
    return meta


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of `model_*.pt`, mapped from disk, in their stored dtypes.

    Raises:
        OmniError: truncated, no torch file, or anything but a plain dict of tensors.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a different kind for each way to be damaged
        if type(error).__name__ == "UnpicklingError":
            raise OmniError(
                "the model file holds other things than tensors, which could run code; not loaded",
                where=str(file),
                mend="take the checkpoint from a source you trust",
            ) from error
        raise OmniError(
            f"the model file is truncated or no torch checkpoint ({str(error).splitlines()[0]})",
            where=str(file),
            mend="copy it again",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise OmniError(
            "the model file holds no plain state dict of tensors",
            where=str(file),
            mend="nanochat's model_*.pt does; optimiser files and whole training states don't",
        )
    return state


def _check_tokenizer(tokenizer: Tokenizer, files: CheckpointFiles, meta: dict[str, Any]) -> None:
    size = meta["model_config"].get("vocab_size")
    if size is not None and tokenizer.vocab_size != size:
        raise OmniError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {size:,}: they don't "
            "belong together",
            where=f"{files.tokenizer} and {files.model}",
            mend="put the tokenizer.pkl that this model was trained with beside it",
        )
