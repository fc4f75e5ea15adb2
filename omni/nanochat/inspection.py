"""What a checkpoint is, in words and numbers: era, sizes, parameters, specials, memory.

Must not know how it is printed.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.nanochat.checkpoint import load_checkpoint, read_state
from omni.nanochat.lora import load_lora, relative_change
from omni.nanochat.memory import Memory, Recipe, Rows, count_groups, training_memory
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer

# Asked for in no stage of nanochat's training: what a never-wanted token's output row looks like.
_NEVER_TARGETS = ("user_start", "assistant_start", "output_start")
_UNIFORM_KURTOSIS = 1.8


class Trained(TypedDict):
    """Whether a special token looks trained as input and as output; None: unclear."""

    input: bool | None
    output: bool | None


class MemoryFacts(TypedDict):
    """Bytes, as `omni.nanochat.memory.Memory` has them."""

    weights: int
    trained: int
    beside: int
    projector: int
    layers: int
    heads: int
    passing: int
    kept: int
    total: int


class AdapterFacts(TypedDict):
    """Adapters of a run. change: by matrix, the size of what they add to W by that of W."""

    path: str
    rank: int
    alpha: float
    dropout: float
    targets: list[str]
    parameters: int
    change: dict[str, float]


class Facts(TypedDict):
    """What `omni-lm inspect --json` writes, key by key.

    windows: of each layer, None where it sees all. stored: elements by dtype. longest_row: positions
    of the rotary table. vocab_rows: of the tables, padding included. adapters: null where it was
    shown none. memory: by "plain" and "checkpointing", with these adapters.
    """

    path: str
    kind: str
    step: int | None
    era: str
    era_told_by: str
    softcap: float
    rope_base: float
    rope_bf16: bool
    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    head_dim: int
    sequence_len: int
    longest_row: int
    window_pattern: str | None
    windows: list[int | None]
    vocab_size: int
    vocab_rows: int
    parameters: int
    parameter_groups: dict[str, int]
    ve_layers: list[int]
    stored: dict[str, int]
    fingerprint: str
    specials: dict[str, Trained]
    adapters: AdapterFacts | None
    memory_batch: int
    memory_length: int
    memory: dict[str, MemoryFacts]


def inspect_checkpoint(
    path_or_name: str | Path,
    batch: int = 8,
    length: int = 512,
    softcap: float | None = None,
    rope_bf16: bool | None = None,
    adapters: Path | None = None,
) -> Facts:
    """Everything worth knowing about a checkpoint.

    Args:
        path_or_name, softcap, rope_bf16: as `load_checkpoint` takes them.
        batch, length: of the micro-batch whose training with the default recipe is estimated.
        adapters: a file of them, made for this LM.
    """
    lm, tok, meta = load_checkpoint(path_or_name, "cpu", softcap, rope_bf16)
    fingerprint = lm.fingerprint()
    worn = None if adapters is None else _adapters(lm, adapters, fingerprint)
    c, era, rows = lm.config, lm.era, lm.lm_head.weight.shape[0]
    stored: Counter[str] = Counter()
    for tensor in read_state(Path(meta["path"])).values():
        stored[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    recipe = Recipe()
    if worn is not None:
        recipe = Recipe(
            lora_rank=worn["rank"], lora_targets=tuple(worn["targets"]),
            lora_dropout=worn["dropout"] > 0,
        )  # fmt: skip
    memory = {
        name: training_memory(
            c, Rows.of(batch, length), replace(recipe, checkpointing=again), era.name, rows
        )
        for name, again in (("plain", False), ("checkpointing", True))
    }
    return {
        "path": meta["path"],
        "kind": meta["kind"] or "",
        "step": meta.get("step"),
        "era": era.name,
        "era_told_by": era.how,
        "softcap": era.softcap,
        "rope_base": era.rope_base,
        "rope_bf16": era.rope_bf16,
        "n_layer": c.n_layer,
        "n_embd": c.n_embd,
        "n_head": c.n_head,
        "n_kv_head": c.n_kv_head,
        "head_dim": c.head_dim,
        "sequence_len": c.sequence_len,
        "longest_row": lm.cos.shape[0],
        "window_pattern": c.window_pattern,
        "windows": lm.windows,
        "vocab_size": c.vocab_size,
        "vocab_rows": rows,
        "parameters": sum(p.numel() for p in lm.parameters()),
        "parameter_groups": count_groups(lm),
        "ve_layers": c.ve_layers if lm.n_ve else [],
        "stored": dict(stored),
        "fingerprint": fingerprint,
        "specials": trained_specials(lm, tok),
        "adapters": worn,
        "memory_batch": batch,
        "memory_length": length,
        "memory": {name: _memory(bytes_of) for name, bytes_of in memory.items()},
    }


def _adapters(lm: NanoChat, file: Path, fingerprint: str) -> AdapterFacts:
    lora = load_lora(file, lm, fingerprint)
    return {
        "path": str(file), "rank": lora.rank, "alpha": lora.alpha, "dropout": lora.dropout,
        "targets": list(lora.targets), "parameters": sum(p.numel() for p in lora.parameters()),
        "change": relative_change(lm, lora),
    }  # fmt: skip


def _memory(m: Memory) -> MemoryFacts:
    return {
        "weights": m.weights, "trained": m.trained, "beside": m.beside,
        "projector": m.projector, "layers": m.layers, "heads": m.heads,
        "passing": m.passing, "kept": m.kept, "total": m.total,
    }  # fmt: skip


def trained_specials(lm: NanoChat, tok: Tokenizer) -> dict[str, Trained]:
    """Whether each special token looks trained, as input (read) and as output (asked for).

    A token that is never asked for is only ever pushed away, in the direction in which all such
    tokens are: its output row is nearly parallel to theirs. A token that is never read keeps its
    initial rows: uniform value embeddings, whose kurtosis is 1.8, or, in the eras without, an
    embedding row of RMS 1.
    """
    names = [name for name in SPECIAL_NAMES if tok.has_special(name)]
    never = [tok.special(name) for name in _NEVER_TARGETS if tok.has_special(name)]
    away = F.normalize(lm.lm_head.weight[never].float(), dim=-1)  # (3, C)
    agree = len(never) > 1 and bool((away @ away.T).min() > 0.9)
    out: dict[str, Trained] = {}
    for name in names:
        token = tok.special(name)
        row = F.normalize(lm.lm_head.weight[token].float(), dim=-1)
        wanted = bool((away @ row).mean() < 0.9) if agree else None
        out[name] = {"input": _was_read(lm, token), "output": wanted}
    return out


def _was_read(lm: NanoChat, token: int) -> bool:
    rows, ve_rows = lm.embed(torch.tensor([[token]], device=lm.device))
    if ve_rows is None:
        values = rows.float().flatten()
        rms = values.square().mean().sqrt()
        return bool((rms - 1).abs() > 5 / (2 * values.numel()) ** 0.5)
    values = ve_rows.float()[0, 0]  # (n_ve, kv_dim)
    kurtosis = torch.stack([_kurtosis(row) for row in values]).mean()
    return bool(kurtosis > _UNIFORM_KURTOSIS + 5 / values.numel() ** 0.5)


def _kurtosis(x: Tensor) -> Tensor:
    """Fourth moment over the squared variance of x (n,)."""
    x = x - x.mean()
    return x.pow(4).mean() / x.square().mean().square()
