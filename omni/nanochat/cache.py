"""Keys and values of what the LM has already read, one length per row.

Rows advance separately: utterances of unequal length are prefilled together, right-padded, and
each goes on decoding from its own end. Padding needs no mask of its own, because it lies beyond
every position a real query may see, and is overwritten as the row grows.

Must not know about layers' arithmetic; model.py asks for a place and gets one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from omni.errors import OmniError


class KVCache:
    """Room for keys and values of all layers, and the last row that smear needs.

    Attributes:
        lengths: (B,) long, positions held per row.
        last_row: (B, C) the last real position's normed row before smear; zeros when empty.
            Upstream's cache drops it between chunks of a prefill; a seam then costs 0.1 in the
            logits.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int, int],
        n_embd: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """shape: (n_layer, B, n_kv_head, max_len, head_dim)."""
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = torch.zeros(shape[1], dtype=torch.long, device=device)
        self.last_row = torch.zeros(shape[1], n_embd, dtype=dtype, device=device)
        self.longest = 0  # max of lengths, kept on the host: reading it would stall the device

    def reserve(self, new: int) -> None:
        """Make room for `new` more positions in every row, doubled where there is none left."""
        room, end = self.keys.size(3), self.longest + new
        if end > room:
            more = max(end, 2 * room) - room
            self.keys = F.pad(self.keys, (0, 0, 0, more))
            self.values = F.pad(self.values, (0, 0, 0, more))

    def reach(self, new: int) -> int:
        """One past the last position that a call with `new` positions may touch."""
        end = self.longest + new
        if end > self.keys.size(3):
            raise OmniError(
                f"the cache has room for {self.keys.size(3)} positions, {end} are needed",
                mend="ask for a larger max_len",
            )
        return end

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put k, v (B, K, T, D) behind each row's end; all keys and values so far, (B, K, S, D)."""
        end = self.reach(k.size(2))
        at = self.lengths[:, None] + torch.arange(k.size(2), device=k.device)  # (B, T)
        index = at[:, None, :, None].expand_as(k)
        self.keys[layer].scatter_(2, index, k)
        self.values[layer].scatter_(2, index, v)
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def swap_last_row(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The row (B, C) before this call's first; remembers the last real row of x (B, T, C)."""
        before = self.last_row
        if lengths is None:
            self.last_row = x[:, -1]
        else:
            rows = torch.arange(x.size(0), device=x.device)
            last = x[rows, (lengths - 1).clamp(min=0)]
            # A row with nothing new keeps what it had.
            self.last_row = torch.where((lengths > 0)[:, None], last, before)
        return before

    def advance(self, lengths: Tensor | None, new: int) -> None:
        """Count this call's positions: `lengths` (B,) real ones, or `new` in every row."""
        if lengths is None:
            self.lengths = self.lengths + new
            self.longest += new
        else:
            self.lengths = self.lengths + lengths
            self.longest = int(self.lengths.max())

    def select(self, rows: Tensor) -> None:
        """Keep these rows (indices into the batch) and forget the others."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths, self.last_row = self.lengths[rows], self.last_row[rows]
        self.longest = int(self.lengths.max())
