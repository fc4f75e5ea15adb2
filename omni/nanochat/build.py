"""Ways to get a NanoChat: from a checkpoint's tensors, or fresh from upstream's initialisation.

Must not know where files lie (checkpoint.py) or how the forward pass is computed (model.py).
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from omni.errors import OmniError
from omni.formats.tensors import check_finite
from omni.nanochat.config import NanoChatConfig, read_config
from omni.nanochat.eras import ERAS, Era, detect_era
from omni.nanochat.model import NanoChat

_WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.)+")
_CONVERTED = ("model.embed_tokens.", "model.layers.")  # how transformers names its NanoChat


def random_init(config: NanoChatConfig, era: str = "E", seed: int = 0) -> NanoChat:
    """A fresh, trainable model with upstream's initial distributions, in fp32 on the CPU.

    Output projections start at zero, so a random model passes no gradient to its input until it
    has been trained.
    """
    model = NanoChat(config, ERAS[era])
    rng = torch.Generator().manual_seed(seed)
    bound = 3**0.5 * config.n_embd**-0.5  # uniform with a standard deviation of 1/sqrt(C)
    for key, p in model.named_parameters():
        if key.endswith("c_proj.weight") or key == "smear_lambda":
            nn.init.zeros_(p)
        elif key == "transformer.wte.weight":
            nn.init.normal_(p, 0.0, 0.8, generator=rng)
        elif key == "lm_head.weight":
            nn.init.normal_(p, 0.0, 0.001, generator=rng)
        elif key.endswith("gate.weight"):
            nn.init.uniform_(p, 0.0, 0.02, generator=rng)
        elif key.endswith("c_fc.weight"):
            nn.init.uniform_(p, -0.4 * bound, 0.4 * bound, generator=rng)
        elif p.ndim == 2:
            nn.init.uniform_(p, -bound, bound, generator=rng)
    depth = torch.linspace(0, 1, config.n_layer)
    if model.era.has_lambdas:
        with torch.no_grad():
            model.resid_lambdas.copy_(1.15 - 0.10 * depth)
            model.x0_lambdas.copy_(0.20 - 0.15 * depth)
    return model


def from_state_dict(
    state_dict: Mapping[str, Tensor],
    model_config: Mapping[str, Any],
    user_config: Mapping[str, Any] | None = None,
    softcap: float | None = None,
    rope_bf16: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> NanoChat:
    """A frozen model from nanochat's own tensors, of whatever era.

    Args:
        state_dict: as saved by nanochat; keys may start with `_orig_mod.` (compiled), `module.`
            (DDP), or both in any order.
        model_config: the dict of that name in the checkpoint's meta.
        user_config: the dict of that name in the meta, which tells era C20 from C.
        softcap: override of the era's softcap, where keys can't tell.
        rope_bf16: override of the rounding of the rotary table, where keys can't tell.
        dtype: of the matrices, and so of the computation; one-dimensional lambdas stay fp32.

    Raises:
        OmniError: a missing, unknown or misshapen key, with its name and the nearest era; sizes that
            are not those of the tensors; weights that are not finite.
    """
    state = strip_wrappers(state_dict)
    era = detect_era(state, user_config, softcap, rope_bf16)
    config = read_config(model_config)
    _check_sizes(config, state)
    rows = state.get("transformer.wte.weight")
    with torch.device("meta"):
        model = NanoChat(config, era, None if rows is None else rows.shape[0])
    _check_keys(model, state, era)
    model.load_state_dict(state, strict=True, assign=True)
    check_finite(model.state_dict(), "the model's weights")
    return cast_matrices(model, dtype).freeze()


def cast_matrices(model: NanoChat, dtype: torch.dtype) -> NanoChat:
    """All matrices and tables to `dtype`, one-dimensional lambdas to fp32, in the same module.

    CUDA-trained files mix bf16 tables with fp32 matrices; a forward pass has one dtype. Always a
    copy: a model that lives on pages mapped from a file dies with SIGBUS when nanochat saves over
    that file.
    """
    for p in model.parameters():
        p.data = p.data.to(dtype if p.ndim > 1 else torch.float32, copy=True)
    return model


def strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys without what torch.compile and DDP put before them."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        bare = _WRAPPED.sub("", key)
        if bare in out:
            raise OmniError(f"the checkpoint holds {bare} twice, with and without a prefix", key)
        out[bare] = tensor
    return out


def _check_sizes(config: NanoChatConfig, state: Mapping[str, Tensor]) -> None:
    """Before a model of these sizes is built: the tensors must hold as much as they claim."""
    converted = [key for key in state if key.startswith(_CONVERTED)]
    if converted:
        raise OmniError(
            f"this is a nanochat converted for transformers: expected transformer.wte.weight, found "
            f"{converted[0]}",
            mend="use the model_*.pt that nanochat wrote: the conversion drops what newer eras have",
        )
    table = state.get("transformer.wte.weight")
    if table is not None and (table.ndim != 2 or table.shape[1] != config.n_embd):
        raise OmniError(
            f"n_embd is {config.n_embd:,}, transformer.wte.weight has the shape {tuple(table.shape)}",
            where="model_config",
            mend="use the meta_*.json that nanochat wrote beside the model",
        )
    if config.n_layer > len(state):
        raise OmniError(
            f"n_layer is {config.n_layer:,}, the file holds {len(state)} tensors",
            where="model_config",
            mend="use the meta_*.json that nanochat wrote beside the model",
        )


def _check_keys(model: NanoChat, state: Mapping[str, Tensor], era: Era) -> None:
    """Exactly the keys and shapes that this era and these sizes ask for."""
    expected = {key: tuple(t.shape) for key, t in model.state_dict().items()}
    told = f"nearest era {era.name}, because {era.how}; tried {', '.join(ERAS)}"
    mend = "check that the file is a whole nanochat checkpoint and the meta its own"
    if "transformer.wpe.weight" in state or "wpe.weight" in state:
        raise OmniError(
            "this is a GPT-2 checkpoint (it has learned positions, wpe), not a nanochat one",
            mend="use a model_*.pt that nanochat wrote",
        )
    for key in sorted(expected.keys() - state.keys()):
        raise OmniError(f"the checkpoint lacks the key {key}", where=told, mend=mend)
    for key in sorted(state.keys() - expected.keys()):
        raise OmniError(f"the checkpoint holds an unknown key {key}", where=told, mend=mend)
    for key, shape in expected.items():
        got = tuple(state[key].shape)
        if got != shape:
            raise OmniError(f"{key} has the shape {got}, not {shape}", where=told, mend=mend)
        if not state[key].is_floating_point():
            raise OmniError(f"{key} is of {state[key].dtype}, no float", where=told, mend=mend)
    rows = expected["transformer.wte.weight"][0]
    if rows < model.config.vocab_size:
        raise OmniError(
            f"transformer.wte.weight has {rows} rows for a vocabulary of {model.config.vocab_size}",
            where=told,
            mend=mend,
        )
