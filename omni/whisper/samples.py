"""The samples of a batch of windows in one host buffer, as the log-mel wants them.

Must not know what a window is part of, or where the buffer comes from.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import torch


class Each(Protocol):
    """`map`, or one that runs in threads."""

    def __call__(
        self,
        function: Callable[[torch.Tensor, np.ndarray], None],
        rows: Iterable[torch.Tensor],
        waves: Iterable[np.ndarray],
        /,
    ) -> Iterable[None]: ...


def assemble(waves: Sequence[np.ndarray], out: torch.Tensor, each: Each = map) -> torch.Tensor:
    """Fill `out`, whatever it held: a window a row, silence behind it and in the rows that are left.

    Args:
        waves: float32 (n,) each.
        out: float32 (B, m) on the host, contiguous rows, B >= len(waves), m >= every n.
        each: fills the rows; a pool's `map` does so in its threads, which numpy lets run.

    Returns:
        `out`.
    """
    for _ in each(fill_row, out[: len(waves)].unbind(), waves):
        pass
    out[len(waves) :].zero_()
    return out


def fill_row(row: torch.Tensor, wave: np.ndarray) -> None:
    """One window: `wave` (n,) to the front of `row` (m,), zeros to its end."""
    # Not torch's copy: in each thread it would start as many threads again.
    values = row.numpy()
    values[: len(wave)] = wave
    values[len(wave) :] = 0
