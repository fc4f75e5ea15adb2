"""Weights and ids by rule, and a slow forward pass written from the formulas, for the LM's tests.

The forward pass here works in float64, one position at a time, with an explicit list of the keys
each query sees: it shares no code and no idea of batching, masks or caches with the product.
"""

import zlib
from typing import Any

import numpy as np
import torch

from omni.nanochat import NanoChat, NanoChatConfig, from_state_dict
from omni.nanochat.eras import ERAS

Array = np.ndarray

# These models are tiny: a second thread costs more than it brings, above all beside another worker.
torch.set_num_threads(1)


def uniform(seed: int, n: int) -> Array:
    """n numbers in [0, 1) of splitmix64's counter stream, the rule of the reference logits."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return z.astype(np.float64) / 2**53


def weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The fp32 tensor that the rule gives a key."""
    scale = 1.0 if "wte" in key or "bigram_embed" in key else 0.5 if len(shape) == 1 else 0.15
    size = int(np.prod(shape))
    w = ((2 * uniform(zlib.crc32(key.encode()), size) - 1) * scale).astype(np.float32)
    return torch.from_numpy(w.reshape(shape) + np.float32("resid_lambdas" in key))


def ids_by_rule(n: int = 600, vocab: int = 300) -> torch.Tensor:
    """(1, n) token ids."""
    return torch.from_numpy(np.floor(vocab * uniform(7, n)).astype(np.int64))[None]


def ruled_state(era: str, config: NanoChatConfig, vocab_rows: int | None = None) -> dict[str, Any]:
    """A state dict of an era with weights by rule; needs no checkpoint."""
    with torch.device("meta"):
        shapes = NanoChat(config, ERAS[era], vocab_rows).state_dict()
    return {key: weight(key, tuple(t.shape)) for key, t in shapes.items()}


def ruled_model(era: str, vocab_rows: int | None = None, **sizes: Any) -> NanoChat:
    """A frozen model of an era with weights by rule, through the public loader."""
    base = {
        "sequence_len": 64,
        "vocab_size": 300,
        "n_layer": 3,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 64,
    }
    config = NanoChatConfig(**{**base, **sizes})
    c20 = {"softcap": 20.0, "rope_bf16": False} if era == "C20" else {}
    if era == "C":
        c20 = {"softcap": 15.0}
    fields = {k: v for k, v in vars(config).items() if v is not None}
    return from_state_dict(ruled_state(era, config, vocab_rows), fields, **c20)


def slow_logits(era: str, config: NanoChatConfig, state: dict[str, Any], ids: list[int]) -> Array:
    """(T, vocab_size) float64 logits of one row of ids."""
    c, w = config, {key: t.double().numpy() for key, t in state.items()}
    L, D, T = c.n_layer, c.n_embd // c.n_head, len(ids)
    has_ve, smeared = era in ("C", "C20", "D", "E"), era == "E"
    width, span = {"C": (32, 2), "C20": (32, 2), "D": (12, 3), "E": (12, 3)}.get(era, (0, 0))
    scale = {"D": 1.15, "E": 1.2}.get(era, 1.0)
    base = 1e5 if era in ("D", "E") else 1e4
    x = [unit(w["transformer.wte.weight"][i]) for i in ids]
    if smeared:
        gates = [sigmoid(w["smear_gate.weight"][0] @ row[:24]) for row in x]
        share = w["smear_lambda"][0]
        x = [x[0]] + [x[t] + share * gates[t] * x[t - 1] for t in range(1, T)]
    x0, middle = list(x), list(x)
    for i in range(L):
        name = f"transformer.h.{i}."
        if era != "A":
            x = [
                w["resid_lambdas"][i] * a + w["x0_lambdas"][i] * b
                for a, b in zip(x, x0, strict=True)
            ]
        window = slow_window(era, c, i)
        h = [unit(row) for row in x]
        q = [split(w[name + "attn.c_q.weight"] @ row, D) for row in h]
        k = [split(w[name + "attn.c_k.weight"] @ row, D) for row in h]
        v = [split(w[name + "attn.c_v.weight"] @ row, D) for row in h]
        for t in range(T):
            if has_ve and (L - 1 - i) % 2 == 0:
                gate = span * sigmoid(w[name + "attn.ve_gate.weight"] @ h[t][:width])
                v[t] = v[t] + gate[:, None] * split(w[f"value_embeds.{i}.weight"][ids[t]], D)
            q[t] = scale * np.stack([unit(turn(a, t, base, era)) for a in q[t]])
            k[t] = scale * np.stack([unit(turn(a, t, base, era)) for a in k[t]])
        for t in range(T):
            seen = range(max(0, t - window), t + 1)
            heads = []
            for head in range(c.n_head):
                kv = head // (c.n_head // c.n_kv_head)
                p = np.exp([q[t][head] @ k[s][kv] / np.sqrt(D) for s in seen])
                heads.append(sum(a * v[s][kv] for a, s in zip(p / p.sum(), seen, strict=True)))
            x[t] = x[t] + w[name + "attn.c_proj.weight"] @ np.concatenate(heads)
            inner = np.maximum(w[name + "mlp.c_fc.weight"] @ unit(x[t]), 0) ** 2
            x[t] = x[t] + w[name + "mlp.c_proj.weight"] @ inner
        if i == L // 2:
            middle = list(x)
    if smeared:
        x = [a - w["backout_lambda"][0] * b for a, b in zip(x, middle, strict=True)]
    cap = 20.0 if era == "C20" else 15.0
    logits = np.stack([w["lm_head.weight"][: c.vocab_size] @ unit(row) for row in x])
    return cap * np.tanh(logits / cap)


def slow_window(era: str, c: NanoChatConfig, layer: int) -> int:
    """Keys before the current one that a layer sees."""
    if era == "A":
        return 10**9
    letter = (c.window_pattern or "L")[layer % len(c.window_pattern or "L")]
    if letter == "L" or layer == c.n_layer - 1:
        return c.sequence_len
    if era in ("B", "C", "C20"):
        return c.sequence_len // 2
    return int(np.ceil(c.sequence_len / (3 if era == "D" else 4) / 128)) * 128


def unit(x: Array) -> Array:
    """RMSNorm without weight, with fp32's epsilon."""
    return x / np.sqrt((x**2).mean() + np.finfo(np.float32).eps)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def split(x: Array, D: int) -> Array:
    """(H * D,) to (H, D)."""
    return x.reshape(-1, D)


def turn(x: Array, t: int, base: float, era: str) -> Array:
    """Rotary embedding of one head's vector at position t, from a table rounded as the era did."""
    half = len(x) // 2
    # The table itself is fp32 in nanochat: the angle too.
    rate = 1.0 / (base ** (torch.arange(0, len(x), 2, dtype=torch.float32) / len(x)))
    angle = torch.tensor(float(t)) * rate
    cos, sin = angle.cos(), angle.sin()
    if era in ("A", "B", "C"):
        cos, sin = cos.bfloat16(), sin.bfloat16()
    c, s = cos.double().numpy(), sin.double().numpy()
    return np.concatenate([x[:half] * c + x[half:] * s, x[half:] * c - x[:half] * s])
