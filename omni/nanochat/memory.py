"""How much memory training a projector on a frozen nanochat takes, computed from its sizes.

Counted is what autograd keeps for a backward pass to the soft rows. The LM's own weights get no
gradient, so a matrix product keeps nothing but the weight; what is left is the input of each norm,
q, k, v and output of the attention, and the MLP's squared activation. Must not know about devices.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from omni.nanochat.config import NanoChatConfig
from omni.nanochat.eras import ERAS
from omni.nanochat.model import NanoChat

RESERVE = 0.9e9  # CUDA context and kernels' workspaces: bytes
FRAGMENTATION = 1.05  # what the caching allocator rounds up
MATRIX_BYTES = 2  # bfloat16


@dataclass(frozen=True)
class Memory:
    """Bytes of each part at the peak, early in the backward pass.

    weights: the LM. inputs: spliced rows, value rows and their gradients, fp32. saved: activations
    kept for the backward pass. logits: at supervised positions, with their gradients. passing: one
    layer's backward (and, with checkpointing, its recomputation). trained: projector, gradients and
    AdamW moments.
    """

    weights: int
    inputs: int
    saved: int
    logits: int
    passing: int
    trained: int

    @property
    def total(self) -> int:
        """Sum of the parts; what the device must hold besides `RESERVE`."""
        # Logits are gone when the layers' backward runs.
        return (
            self.weights + self.inputs + self.saved + self.trained + max(self.logits, self.passing)
        )


def training_memory(
    config: NanoChatConfig,
    era: str = "E",
    batch: int = 8,
    length: int = 512,
    supervised: int | None = None,
    checkpointing: bool = False,
    trained_parameters: int = 0,
    element: int = MATRIX_BYTES,
    vocab_rows: int | None = None,
) -> Memory:
    """Peak memory of one forward and backward pass with gradients to soft rows only.

    Args:
        batch, length: rows, and positions of each (soft tokens and text).
        supervised: positions of each row where a token is asked for; a quarter by default.
        checkpointing: each layer's activations are computed again instead of kept.
        trained_parameters: of the projector.
        element: bytes of a matrix element and an activation.
        vocab_rows: rows of the tables where they are not the next multiple of 64.
    """
    C, kv, L, H = config.n_embd, config.kv_dim, config.n_layer, config.n_head
    n = batch * length
    n_out = batch * (length // 4 if supervised is None else supervised)
    n_ve = len(config.ve_layers) if ERAS[era].ve_gate_width else 0
    counts = parameter_groups(config, era, vocab_rows)
    lambdas = counts.pop("lambdas")
    layer = saved_per_layer(config, element)
    ends = C * element * n + n_ve * kv * element * n + C * element * n_out
    if ERAS[era].has_smear:
        ends += C * element * n
    per_layer = C * element if checkpointing else layer
    # A layer's backward holds gradients of the MLP's inner width, of q, k, v and of the residual.
    passing = 14 * C * element * n + (layer * n if checkpointing else 0)
    rows = config.vocab_size
    return Memory(
        weights=sum(counts.values()) * element + lambdas * 4,
        inputs=2 * 4 * (C + n_ve * kv) * n,
        saved=L * per_layer * n + ends,
        logits=n_out * rows * (3 * 4 + 2 * 4),
        passing=passing + 4 * n * H,
        trained=16 * trained_parameters,
    )


def saved_per_layer(config: NanoChatConfig, element: int) -> int:
    """Bytes a position that one layer keeps: inputs of both norms (2C), of q's and k's norm (C and
    kv), q, k, v, output of the attention (4C), the MLP's activation (4C), and fp32 statistics.
    """
    C, kv, H, K = config.n_embd, config.kv_dim, config.n_head, config.n_kv_head
    statistics = 2 + H + K + H  # reciprocal norms, and the attention's log-sum-exp
    return (11 * C + kv) * element + 4 * statistics


def parameter_groups(
    config: NanoChatConfig, era: str = "E", vocab_rows: int | None = None
) -> dict[str, int]:
    """Parameters by group: wte, lm_head, value_embeds, attention, mlp, gates, lambdas (1-D)."""
    return dict(_groups(config, era, vocab_rows))


@lru_cache(maxsize=16)
def _groups(
    config: NanoChatConfig, era: str, vocab_rows: int | None
) -> tuple[tuple[str, int], ...]:
    """Counted on a model without data; kept, because a search over batches asks again and again."""
    with torch.device("meta"):
        model = NanoChat(config, ERAS[era], vocab_rows)
    return tuple(count_groups(model).items())


def count_groups(model: NanoChat) -> dict[str, int]:
    """Parameters of a model by group, all groups always there."""
    groups = ("wte", "lm_head", "value_embeds", "attention", "mlp", "gates", "lambdas")
    out = dict.fromkeys(groups, 0)
    for key, p in model.named_parameters():
        if p.ndim == 1:
            group = "lambdas"
        elif "gate" in key:
            group = "gates"
        elif ".attn." in key or ".mlp." in key:
            group = "attention" if ".attn." in key else "mlp"
        else:
            group = next(g for g in groups if g in key)
        out[group] += p.numel()
    return out


def largest_batch(
    card_gb: float, config: NanoChatConfig, checkpointing: bool, trained_parameters: int = 0
) -> int:
    """Rows of 512 positions that fit a card of so many GB (1e9 bytes); 0 if none does."""
    room = (card_gb * 1e9 - RESERVE) / FRAGMENTATION

    def total(batch: int) -> int:
        kept = {"checkpointing": checkpointing, "trained_parameters": trained_parameters}
        return training_memory(config, batch=batch, **kept).total  # type: ignore[arg-type]

    batch = 0
    while batch < 256 and total(batch + 1) <= room:
        batch += 1
    return batch


def depth_config(depth: int) -> NanoChatConfig:
    """nanochat's own sizes for a depth: 64 channels a layer, heads of 128, 2,048 positions."""
    width = -(-depth * 64 // 128) * 128
    heads = width // 128
    return NanoChatConfig(2048, 32768, depth, heads, heads, width, "SSSL")
