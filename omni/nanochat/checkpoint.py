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

from omni.device import pick_dtype
from omni.errors import OmniError
from omni.formats.checked import read_json
from omni.formats.tensors import read_tensors
from omni.nanochat.build import cast_matrices, from_state_dict
from omni.nanochat.config import ModelMeta
from omni.nanochat.discovery import CheckpointFiles, find_checkpoint, kind_from_meta
from omni.nanochat.layers import FP16_ROOT, Block
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
        dtype: of the matrices; None takes what `pick_dtype` takes for "auto".

    Returns:
        (model, tokenizer, meta). `meta` is the checkpoint's own plus "kind" ("base", "mid", "sft"
        or "rl"), "path" (of the model file) and "source" (how it was found).

    Raises:
        OmniError: nothing there, a damaged or foreign file, a key that fits no era, a tokenizer of
            another model, or an LM that fp16 can't hold.
    """
    files = find_checkpoint(path_or_name)
    meta = read_meta(files.meta)
    tokenizer = Tokenizer.load(files.tokenizer)
    _check_tokenizer(tokenizer, files, meta)
    if dtype is None:
        dtype = pick_dtype("auto", device)
    state = read_state(files.model)
    # nanochat writes neither; a user whose checkpoint is ambiguous can, once and for all commands.
    softcap = meta.get("softcap") if softcap is None else softcap
    rope_bf16 = meta.get("rope_bf16") if rope_bf16 is None else rope_bf16
    try:
        lm = from_state_dict(
            state, meta["model_config"], meta.get("user_config"), softcap, rope_bf16,
            torch.float32 if dtype == torch.float16 else dtype,
        )  # fmt: skip
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
    if dtype == torch.float16:
        lm.loaded_fingerprint = lm.fingerprint()
        cast_matrices(lm, dtype)
    lm = lm.to(device)
    if dtype == torch.float16:
        _refuse_overflow(lm, tokenizer, str(files.model))
    return lm, tokenizer, meta


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


@torch.no_grad()
def _refuse_overflow(lm: NanoChat, tokenizer: Tokenizer, where: str) -> None:
    """nanochat trains in bf16, whose numbers reach as far as fp32's; fp16 ends at 65,504. A row of
    the LM's own tokens must stay within: what the MLPs square, and the logits."""
    ids = torch.linspace(0, lm.config.vocab_size - 1, min(255, lm.config.sequence_len - 1)).long()
    row = torch.cat([torch.tensor([tokenizer.special("bos")]), ids])[None].to(lm.device)
    largest: list[Tensor] = []
    hooks = [
        cast(Block, block).mlp.c_fc.register_forward_hook(lambda _, __, y: largest.append(y.max()))
        for block in cast(torch.nn.ModuleList, lm.transformer["h"])
    ]
    logits = lm(row)
    for hook in hooks:
        hook.remove()
    fits = bool(torch.isfinite(logits).all()) and all(bool(y < FP16_ROOT) for y in largest)
    if not fits:
        raise OmniError(
            "this LM computes with numbers that fp16 can't hold",
            where,
            "give --lm-dtype fp32, or bf16 (slow where the card has no bf16 of its own)",
        )


def _check_tokenizer(tokenizer: Tokenizer, files: CheckpointFiles, meta: ModelMeta) -> None:
    size = meta["model_config"].get("vocab_size")
    if type(size) is int and tokenizer.vocab_size != size:
        raise OmniError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {size:,}: they don't "
            "belong together",
            where=f"{files.tokenizer} and {files.model}",
            mend="put the tokenizer.pkl that this model was trained with beside it",
        )
