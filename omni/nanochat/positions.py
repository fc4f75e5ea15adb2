"""Where a position looks and how it is marked: attention windows and the rotary table, by era.

Must not know the forward pass that uses them.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omni.errors import OmniError
from omni.nanochat.eras import Era

if TYPE_CHECKING:
    from omni.nanochat.config import NanoChatConfig

ROPE_FACTOR = 10  # upstream's rotary table is this many times sequence_len long


def window_sizes(config: "NanoChatConfig", era: Era) -> list[int | None]:
    """Keys before the current one that each layer sees; None for all of them.

    No pattern means all L, as upstream's loaders have read such a meta since windows exist: its
    midtraining left the pattern out.
    """
    if not era.windowed:
        return [None] * config.n_layer
    pattern = (config.window_pattern or "L").upper()
    if set(pattern) - {"S", "L"}:
        raise OmniError(
            f"window_pattern {pattern!r} has other letters than S and L", where="model_config"
        )
    size: dict[str, int | None] = {
        "L": config.sequence_len,
        "S": era.short_window(config.sequence_len),
    }
    windows = [size[pattern[i % len(pattern)]] for i in range(config.n_layer)]
    windows[-1] = size["L"]
    return windows


def rope_table(config: "NanoChatConfig", era: Era) -> tuple[Tensor, Tensor]:
    """cos and sin, (10 * sequence_len, head_dim / 2) fp32, rounded to bf16 where the era did."""
    # On the CPU by name: the model may be under construction on the meta device, the table is real.
    channel = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
    frequency = 1.0 / era.rope_base ** (channel / config.head_dim)
    t = torch.arange(config.sequence_len * ROPE_FACTOR, dtype=torch.float32, device="cpu")
    angle = torch.outer(t, frequency)
    cos, sin = angle.cos(), angle.sin()
    if era.rope_bf16:
        cos, sin = cos.bfloat16().float(), sin.bfloat16().float()
    return cos, sin
