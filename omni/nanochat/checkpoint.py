"""Load a nanochat checkpoint from disk: model, tokenizer and meta that belong together.

Runs nothing that the files hold: tensors through omni.formats.tensors, the tokenizer
through its own restricted one. Must not know the forward pass (model.py) or the search order
(discovery.py).
"""

import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from omni.errors import OmniError
from omni.formats.checked import read_json
from omni.formats.tensors import read_tensors
from omni.nanochat.build import from_state_dict
from omni.nanochat.config import ModelMeta
from omni.nanochat.discovery import CheckpointFiles, find_checkpoint, kind_from_meta
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer


def load_checkpoint(
    path_or_name: str | Path,
    device: str | torch.device = "cpu",
    softcap: float | None = None,
    rope_bf16: bool | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[NanoChat, Tokenizer, ModelMeta]:
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
    meta["kind"], meta["path"], meta["source"] = kind, str(files.model), files.source
    return lm.to(device), tokenizer, meta


def read_meta(file: Path) -> ModelMeta:
    """The checkpoint's meta; holds at least `model_config`.

    A `config.json` that holds nanochat's sizes without that key around them is taken too.

    Raises:
        OmniError: no JSON, no `model_config` in it, or a field of another type.
    """
    mend = "use the meta_*.json that nanochat wrote beside the model"
    found = read_json(file, dict[str, Any], mend)
    if "model_config" not in found:
        if found.get("model_type") == "nanochat" or "hidden_size" in found:
            raise OmniError(
                "a config of transformers: expected nanochat's model_config (sequence_len, "
                f"n_layer, …), found {', '.join(sorted(found)[:8])[:200]}",
                where=str(file),
                mend="use nanochat's own files: the conversion drops what newer eras have",
            )
        if not {"n_layer", "n_embd"} <= found.keys():
            raise OmniError("the checkpoint's meta has no model_config", str(file), mend)
        return cast(ModelMeta, {**found, "model_config": found})
    return read_json(file, ModelMeta, mend)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a model file, mapped from disk where it is torch's own, in their stored dtypes.

    Raises:
        OmniError: truncated, no tensor file, or anything but a plain dict of tensors.
    """
    return read_tensors(file)


def _check_tokenizer(tokenizer: Tokenizer, files: CheckpointFiles, meta: ModelMeta) -> None:
    size = meta["model_config"].get("vocab_size")
    if type(size) is int and tokenizer.vocab_size != size:
        raise OmniError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {size:,}: they don't "
            "belong together",
            where=f"{files.tokenizer} and {files.model}",
            mend="put the tokenizer.pkl that this model was trained with beside it",
        )
