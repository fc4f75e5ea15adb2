"""Adapters that say something, and the LM that they are folded into: it hears them in every row."""

from dataclasses import asdict

import torch

from omni.nanochat.build import from_state_dict
from omni.nanochat.lora import Lora, merged_state
from omni.nanochat.model import NanoChat


def loud_lora(lm: NanoChat, rank: int = 4, size: float = 0.3, seed: int = 3) -> Lora:
    """Adapters with a B that is not zero."""
    lora = Lora(lm.config, rank, 2.0 * rank).eval()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in lora.named_parameters():
            if key.endswith(".B"):
                p.copy_(size * torch.randn(p.shape, generator=rng) / p.shape[1])
    return lora


def folded(lm: NanoChat, lora: Lora) -> NanoChat:
    """A new LM whose own weights hold the adapters."""
    state = {key: tensor.clone() for key, tensor in merged_state(lm, lora).items()}
    era = {"softcap": lm.era.softcap, "rope_bf16": lm.era.rope_bf16}
    return from_state_dict(state, asdict(lm.config), **era)
