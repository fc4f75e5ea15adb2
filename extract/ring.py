"""A bounded number of host buffers used in turn, in place of a fresh one for every batch.

Pinning memory costs more than filling it, and a fresh block's pages are faulted in one by one. A buffer
is handed out again only once its last user is done with it, a card's copy included. Must not know what
is put into them.
"""

import threading
from collections import deque
from typing import Protocol

import torch


class Waitable(Protocol):
    """What a card signals, as torch.cuda.Event."""

    def synchronize(self) -> None:
        """Return once it has happened."""


class Buffer:
    """A buffer that was taken from a ring; whoever is done with it last frees it."""

    def __init__(self, dtype: torch.dtype, pinned: bool) -> None:
        self._all = torch.empty(0, dtype=dtype)
        self._pinned = pinned
        self.busy: Waitable | None = None  # what still reads or writes it though it was freed

    def first(self, n: int) -> torch.Tensor:
        """Its first `n` elements (n,), with whatever they hold; it grows to a power of two."""
        if self._all.numel() < n:
            dtype, size = self._all.dtype, 1 << (n - 1).bit_length()
            self._all = torch.empty(0, dtype=dtype)  # not both at once
            self._all = torch.empty(size, dtype=dtype, pin_memory=self._pinned)
        return self._all[:n]


class Ring:
    """Buffers of one dtype.

    Args:
        size: how many there are at most; they are made when they are first wanted.
        dtype: of the elements.
        pinned: so that a card copies from and to them while the host goes on.
    """

    def __init__(self, size: int, dtype: torch.dtype, pinned: bool) -> None:
        self._dtype, self._pinned = dtype, pinned
        self._unmade = size
        self._free: deque[Buffer] = deque()
        self._changed = threading.Condition()

    def take(self) -> Buffer:
        """An idle buffer, else a new one, else that which was freed first, once it is idle."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._free or self._unmade))
            if self._unmade and not (self._free and self._free[0].busy is None):
                self._unmade -= 1
                return Buffer(self._dtype, self._pinned)
            buffer = self._free.popleft()
        if buffer.busy is not None:
            buffer.busy.synchronize()
            buffer.busy = None
        return buffer

    def free(self, buffer: Buffer, busy: Waitable | None = None) -> None:
        """Give a buffer back, from any thread.

        Args:
            busy: what the buffer is still needed for; the next `take` of it waits.
        """
        buffer.busy = busy
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()
