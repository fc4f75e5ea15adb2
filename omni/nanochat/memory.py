"""How much memory training a projector on a frozen nanochat takes, computed from sizes alone.

Counted is what autograd keeps for a backward pass to the soft rows, and what stands beside it at
the peak. The LM's own weights get no gradient, so a matrix product keeps nothing but the weight;
what is left is the input of each norm, q, k, v and output of the attention, and the MLP's squared
activation. A test holds it to what autograd really keeps. Must not know about devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from omni.nanochat.config import NanoChatConfig
from omni.nanochat.eras import ERAS
from omni.nanochat.lora import TARGETS, matrix_sides
from omni.nanochat.model import NanoChat
from omni.nanochat.positions import ROPE_FACTOR, window_sizes

RESERVE = 0.9e9  # CUDA context and kernels' workspaces: bytes
FRAGMENTATION = 1.05  # what the caching allocator rounds up
MOST_ROWS = 256  # of `largest_batch`
FP32, HALF, INT64 = 4, 2, 8  # bytes


@dataclass(frozen=True)
class Rows:
    """A micro-batch, padded. batch: rows; length: positions of each; soft: soft tokens of each;
    asked: positions of each where a token is asked for (the text and its end)."""

    batch: int
    length: int
    soft: int
    asked: int

    @classmethod
    def of(cls, batch: int, length: int) -> "Rows":
        """A row of so many positions as speech fills it: a quarter of it is text."""
        return cls(batch, length, length - length // 4, length // 4)


@dataclass(frozen=True)
class ProjectorSizes:
    """The arguments of `build_projector` that decide how much memory it takes."""

    name: str = "mlp"
    d_in: int = 512
    stack: int = 4
    hidden: int = 1024
    audio_ve: str = "learned"

    def value_rows(self, n_ve: int) -> int:
        """Value rows that its head gives for each soft token."""
        return {"learned": n_ve, "shared": min(n_ve, 1), "zero": 0}[self.audio_ve]

    @property
    def d_out(self) -> int:
        """Width in front of the heads."""
        return self.d_in * self.stack if self.name == "linear" else self.hidden

    def weights(self, n_out: int) -> int:
        """Elements of its matrices, the heads' `n_out` outputs among them."""
        wide = self.d_in * self.stack
        body = {"mlp": wide * self.hidden, "linear": 0}
        body["conv"] = 2 * wide * self.hidden + self.hidden**2
        return body[self.name] + self.d_out * n_out

    def parameters(self, n_out: int) -> int:
        """Trained parameters: matrices, biases and norms."""
        norms = {"mlp": self.d_in * self.stack, "conv": self.d_in, "linear": self.d_out}
        inner = {"mlp": 2 * self.hidden, "conv": 3 * self.hidden, "linear": 0}
        return self.weights(n_out) + norms[self.name] + inner[self.name] + n_out


@dataclass(frozen=True)
class Recipe:
    """What of a training's options decides its memory.

    ctc: the auxiliary loss is on. checkpointing: layers are computed again instead of kept.
    lora_rank: of adapters, computed in the LM's dtype; 0: none. lora_targets: the matrices of a
    layer that have one. lora_dropout: whether they drop inputs.
    element: bytes of the LM's dtype. card: a CUDA device, where the projector computes under
    autocast if the LM is in half precision, and each norm is one kernel; a CPU's keep more.
    """

    projector: ProjectorSizes = field(default_factory=ProjectorSizes)
    ctc: bool = True
    checkpointing: bool = False
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = TARGETS
    lora_dropout: bool = False
    element: int = HALF
    card: bool = True

    @property
    def soft_element(self) -> int:
        """Bytes of an element of a soft row."""
        return HALF if self.card and self.element == HALF else FP32


@dataclass(frozen=True)
class Memory:
    """Bytes of each part at the peak.

    weights: the LM, its rotary table, and the directions of CTC. trained: projector and adapters
    with gradients, AdamW moments and the half copies that autocast computes with. beside: soft
    rows and spliced rows that autograd does not hold; the features are gone by then. projector, layers, heads: what autograd
    keeps, in the projector, the LM's layers, and of the two losses (logits, log-probabilities).
    passing: what comes and goes on top, at the worst moment, less what has gone by then.
    """

    weights: int
    trained: int
    beside: int
    projector: int
    layers: int
    heads: int
    passing: int

    @property
    def kept(self) -> int:
        """What autograd holds between forward and backward pass."""
        return self.projector + self.layers + self.heads

    @property
    def total(self) -> int:
        """What the device must hold besides `RESERVE`."""
        return self.weights + self.trained + self.beside + self.kept + self.passing


def training_memory(
    config: NanoChatConfig,
    rows: Rows,
    recipe: Recipe | None = None,
    era: str = "E",
    vocab_rows: int | None = None,
) -> Memory:
    """Peak memory of one micro-batch of a training step.

    Args:
        rows: the micro-batch.
        recipe: the trainer's defaults if None.
        vocab_rows: rows of the LM's tables where they are not the next multiple of 64.
    """
    recipe = recipe or Recipe()
    e, s, V = recipe.element, recipe.soft_element, config.vocab_size
    n, n_soft, n_out = (rows.batch * k for k in (rows.length, rows.soft, rows.asked))
    n_ve = len(config.ve_layers) if ERAS[era].ve_gate_width else 0
    width = config.n_embd + n_ve * config.kv_dim  # of a spliced row with its value rows
    head = config.n_embd + recipe.projector.value_rows(n_ve) * config.kv_dim
    trained = recipe.projector.parameters(head)
    adapters = adapter_parameters(config, recipe.lora_rank, recipe.lora_targets)
    half = (HALF if s == HALF else 0) * recipe.projector.weights(head)
    half += (HALF if e == HALF else 0) * adapters
    counts = parameter_groups(config, era, vocab_rows)
    weights = sum(k * (FP32 if name == "lambdas" else e) for name, k in counts.items())
    weights += ROPE_FACTOR * config.sequence_len * config.head_dim * FP32
    weights += config.vocab_size * config.n_embd * e if recipe.ctc else 0
    layer = kept_by_layers(config, rows, recipe, era, 1)
    layers = kept_by_ends(config, rows, recipe, era)
    layers += kept_by_layers(config, rows, recipe, era, config.n_layer)
    ce = n_out * (2 * V * FP32 + config.n_embd * e + FP32 + 2 * INT64)
    ctc = kept_by_ctc(config, rows, recipe) if recipe.ctc else 0
    # Of the last layer's MLP four tensors of its inner width, and the residual's gradient.
    inner = 17 * config.n_embd * e * n
    if "mlp.c_proj" in recipe.lora_targets:  # by then its adapter has let go of its own
        inner -= n * kept_by_adapters(config, replace(recipe, lora_targets=("mlp.c_proj",)))
    if recipe.checkpointing:
        once = replace(recipe, checkpointing=False)
        inner += kept_by_layers(config, rows, once, era, 1) - layer
        # A few layers down: gradients of what layers share (x0, backout) outweigh the one let go.
        inner += (ERAS[era].has_lambdas + ERAS[era].has_smear) * config.n_embd * e * n
    # Backward, in this order: CTC, cross-entropy, the layers, the value rows, the optimiser.
    phases = (
        3 * FP32 * n_soft * (V + 1) if recipe.ctc else 0,
        2 * FP32 * n_out * V - ctc,
        inner - ctc - ce,
        3 * n * width * s - ctc - ce - layers,
    )
    return Memory(
        weights=weights,
        trained=16 * (trained + adapters) + half,
        beside=n_soft * head * s + (n * width * s if s != e else 0),
        projector=kept_by_projector(rows, recipe, head, config.n_embd),
        layers=layers,
        heads=ce + ctc,
        passing=max(phases),
    )


def kept_by_projector(rows: Rows, recipe: Recipe, head: int, n_embd: int) -> int:
    """Bytes: inputs of norms, matrices and GELU, its soft rows; weights are counted elsewhere."""
    p, s = recipe.projector, recipe.soft_element
    n, frames = rows.batch * rows.soft, rows.batch * rows.soft * p.stack
    # Under autocast each of two heads takes a copy of its own; without, both read what GELU gave.
    copies = 2 if s == HALF and head > n_embd else 1
    out = n * p.d_out * s * copies + (n * n_embd * s if recipe.ctc else 0)
    out += INT64 * rows.batch * (rows.length * 2 + rows.soft)  # where soft rows come from and go
    if p.name == "linear":
        return frames * p.d_in * FP32 + n * FP32 + out
    # The middle norm's input and GELU's, in fp32; on a CPU what its weight is multiplied with, too.
    inner = n * p.hidden * (2 if recipe.card else 3) * FP32 + n * FP32
    if p.name == "mlp":
        return frames * p.d_in * (FP32 + s) + n * FP32 + inner + out
    padded = rows.batch * (rows.soft + 1) * p.stack
    return frames * (p.d_in + 1) * FP32 + padded * p.d_in * s + inner + 2 * n * p.hidden * s + out


def kept_by_layers(
    config: NanoChatConfig, rows: Rows, recipe: Recipe, era: str, n_layer: int
) -> int:
    """Bytes that the last `n_layer` layers keep; with checkpointing the input of each alone.

    A position and layer: inputs of both norms (2C), of q's and k's norm (C and kv), q, k, v and
    output of the attention (4C), the MLP's activation (4C), fp32 statistics; and what adapters
    keep.
    """
    C, kv, H, K = config.n_embd, config.kv_dim, config.n_head, config.n_kv_head
    e, n, T = recipe.element, rows.batch * rows.length, rows.length
    if recipe.checkpointing:
        return n_layer * C * e * n
    statistics = 2 + H + K + H  # reciprocal norms, and the attention's log-sum-exp
    position = (11 * C + kv) * e + statistics * FP32
    position += kept_by_adapters(config, recipe)
    out = n_layer * position * n
    first = config.n_layer - n_layer
    if ERAS[era].ve_gate_width:
        out += 2 * K * e * n * sum(i >= first for i in config.ve_layers)
    windows = window_sizes(config, ERAS[era])[first:]
    return out + sum(w is not None and w < T for w in windows) * T * T * e


def kept_by_adapters(config: NanoChatConfig, recipe: Recipe) -> int:
    """Bytes of a position and layer: the inputs that A sees, what stands between A and B, and the
    mask of what was dropped (a byte an element on a card, a factor on a CPU)."""
    if not recipe.lora_rank:
        return 0
    C, names = config.n_embd, recipe.lora_targets
    inputs = C * any(name in names for name in ("attn.c_q", "attn.c_k", "attn.c_v"))
    inputs += C * (("attn.c_proj" in names) + ("mlp.c_fc" in names)) + 4 * C * (
        "mlp.c_proj" in names
    )
    mask = inputs * (1 if recipe.card else recipe.element) if recipe.lora_dropout else 0
    return (inputs + len(names) * recipe.lora_rank) * recipe.element + mask


def kept_by_ends(config: NanoChatConfig, rows: Rows, recipe: Recipe, era: str) -> int:
    """Bytes around the layers: spliced rows, value rows, the row before each (smear), rotation."""
    C, e, n = config.n_embd, recipe.element, rows.batch * rows.length
    n_ve = len(config.ve_layers) if ERAS[era].ve_gate_width else 0
    out = n * (C * e + FP32 + n_ve * config.kv_dim * e) + rows.length * config.head_dim * e
    return out + (n * (C + 2) * e if ERAS[era].has_smear else 0)


def kept_by_ctc(config: NanoChatConfig, rows: Rows, recipe: Recipe) -> int:
    """Bytes: log-probabilities of each soft token over the vocabulary, and CTC's own table."""
    text = rows.asked - 1
    states = 2 * text + 1
    per_soft = (config.vocab_size + 1 + states + 1) * FP32
    return rows.batch * (rows.soft * per_soft + text * INT64)


def adapter_parameters(config: NanoChatConfig, rank: int, targets: Sequence[str] = TARGETS) -> int:
    """Of LoRA on these matrices of every layer."""
    sides = matrix_sides(config)
    return rank * config.n_layer * sum(sum(sides[name]) for name in targets)


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
    card_gb: float, config: NanoChatConfig, rows: Rows, recipe: Recipe | None = None
) -> int:
    """Rows like these (whatever their number) that fit a card of so many GB (1e9 bytes), at most
    `MOST_ROWS`; 0 if none does."""
    room = (card_gb * 1e9 - RESERVE) / FRAGMENTATION
    batch = 0
    while batch < MOST_ROWS:
        if training_memory(config, replace(rows, batch=batch + 1), recipe).total > room:
            break
        batch += 1
    return batch


def depth_config(depth: int) -> NanoChatConfig:
    """nanochat's own sizes for a depth: 64 channels a layer, heads of 128, 2,048 positions."""
    width = -(-depth * 64 // 128) * 128
    heads = width // 128
    return NanoChatConfig(2048, 32768, depth, heads, heads, width, "SSSL")
