"""One layer of a nanochat: its matrices, attention and MLP, and low-rank adapters beside them.

Must not know how layers are put together (model.py), nor where adapters come from (lora.py).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni.nanochat.cache import KVCache
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.eras import Era

FP16_ROOT = 255.0  # its square is the last that fp16 holds


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last axis, without weight; eps is the dtype's machine epsilon."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half split, by -theta as nanochat does. x: (B, H, T, D)."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin], dim=-1)


class Matrix(nn.Linear):
    """A bias-free linear map that starts at zero: build.py always gives it its values.

    torch's own initialisation would be thrown away, and costs seconds where it runs on the meta
    device.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)


class Table(nn.Embedding):
    """A lookup table that starts at zero, for the same reason."""

    def reset_parameters(self) -> None:
        """Zeros."""
        nn.init.zeros_(self.weight)


class Worn(NamedTuple):
    """The adapters of one layer, as one forward pass wears them.

    pairs: by matrix ("attn.c_q"), A (r, in) and B (out, r), fp32; a matrix without is not adapted.
    factor: what B A x is multiplied with. dropout: probability, 0 outside training. heard: (B,)
    bool, the rows that they act in; None: all.
    """

    pairs: dict[str, tuple[Tensor, Tensor]]
    factor: float
    dropout: float
    heard: Tensor | None

    def drop(self, x: Tensor, *names: str) -> Tensor:
        """What the adapters of these matrices see of their input; one mask for all of them."""
        wanted = self.dropout and any(name in self.pairs for name in names)
        return F.dropout(x, self.dropout) if wanted else x

    def add(self, name: str, y: Tensor, x: Tensor) -> Tensor:
        """y + factor B A x in the rows heard, y to the bit in the others.

        Args:
            y: (B, T, out), what the frozen matrix gave.
            x: (B, T, in), its input after `drop`.
        """
        if name not in self.pairs:
            return y
        a, b = (w.to(x.dtype) for w in self.pairs[name])
        inner = F.linear(x, a)  # (B, T, r)
        if self.heard is not None:
            # Exact zeros give an exact zero beside y. Here they are r wide, behind B out wide.
            inner = torch.where(self.heard[:, None, None], inner, 0.0)
        flat = torch.addmm(y.flatten(0, 1), inner.flatten(0, 1), b.t(), alpha=self.factor)
        return flat.view(y.shape)


class Attention(nn.Module):
    """Grouped causal attention with RoPE, q and k norm, a window, and gated value embeddings."""

    def __init__(self, config: NanoChatConfig, era: Era, has_ve: bool) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.qk_scale, self.gate_range = era.qk_scale, era.ve_gate_range
        self.gate_width = era.ve_gate_width
        C, kv = config.n_embd, config.kv_dim
        self.c_q = Matrix(C, C)
        self.c_k = Matrix(C, kv)
        self.c_v = Matrix(C, kv)
        self.c_proj = Matrix(C, C)
        if has_ve:
            self.ve_gate = Matrix(era.ve_gate_width, config.n_kv_head)

    def forward(
        self,
        x: Tensor,
        ve: Tensor | None,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        layer: int,
        worn: Worn | None = None,
    ) -> Tensor:
        """x: (B, T, C), normed; ve: (B, T, kv_dim) or None; mask: (B or 1, 1, T, S) or None."""
        B, T, C = x.shape
        q, k, v = self.c_q(x), self.c_k(x), self.c_v(x)
        if worn is not None:
            seen = worn.drop(x, "attn.c_q", "attn.c_k", "attn.c_v")
            q, k = worn.add("attn.c_q", q, seen), worn.add("attn.c_k", k, seen)
            v = worn.add("attn.c_v", v, seen)
        q = q.view(B, T, self.n_head, -1).transpose(1, 2)  # (B, H, T, D)
        k = k.view(B, T, self.n_kv_head, -1).transpose(1, 2)  # (B, K, T, D)
        v = v.view(B, T, self.n_kv_head, -1)  # (B, T, K, D)
        if ve is not None:
            gate = self.gate_range * torch.sigmoid(self.ve_gate(x[..., : self.gate_width]))
            v = v + gate.unsqueeze(-1) * ve.view(B, T, self.n_kv_head, -1)
        v = v.transpose(1, 2)
        q, k = norm(rotate(q, *rope)), norm(rotate(k, *rope))
        if self.qk_scale != 1.0:
            q, k = q * self.qk_scale, k * self.qk_scale
        if cache is not None:
            k, v = cache.append(layer, k, v)
        if self.n_head != self.n_kv_head:
            k = k.repeat_interleave(self.n_head // self.n_kv_head, dim=1)
            v = v.repeat_interleave(self.n_head // self.n_kv_head, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        y = y.transpose(1, 2).reshape(B, T, C)
        out = self.c_proj(y)
        return out if worn is None else worn.add("attn.c_proj", out, worn.drop(y, "attn.c_proj"))


class MLP(nn.Module):
    """Linear, squared ReLU, Linear; four times as wide inside."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.c_fc = Matrix(n_embd, 4 * n_embd)
        self.c_proj = Matrix(4 * n_embd, n_embd)

    def forward(self, x: Tensor, worn: Worn | None = None) -> Tensor:
        # In place where autograd keeps neither side: this is the widest tensor of a layer.
        wide = self.c_fc(x)
        x = wide if worn is None else worn.add("mlp.c_fc", wide, worn.drop(x, "mlp.c_fc"))
        if x.dtype == torch.float16:  # a square beyond its range would end the row in NaN
            x = F.hardtanh(x, 0.0, FP16_ROOT, inplace=True)
        else:
            x = F.relu(x, inplace=True)
        x = x.square() if x.requires_grad else x.square_()
        out = self.c_proj(x)
        return out if worn is None else worn.add("mlp.c_proj", out, worn.drop(x, "mlp.c_proj"))


class Block(nn.Module):
    """One layer: attention and MLP, each on the normed residual stream."""

    def __init__(self, config: NanoChatConfig, era: Era, has_ve: bool) -> None:
        super().__init__()
        self.attn = Attention(config, era, has_ve)
        self.mlp = MLP(config.n_embd)

    def forward(
        self,
        x: Tensor,
        ve: Tensor | None,
        rope: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None,
        layer: int,
        worn: Worn | None = None,
    ) -> Tensor:
        x = x + self.attn(norm(x), ve, rope, mask, cache, layer, worn)
        return x + self.mlp(norm(x), worn)
