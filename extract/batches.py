"""Items of equal length into batches, in an order that the items alone decide.

Must not know what the items are.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

WAITING_BATCHES = 8  # items that may wait for others of their length, in batches: bounds memory

T = TypeVar("T")


class Batches(Generic[T]):
    """Collects items until `size` of one length are there, or too many of all lengths wait."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._n = 0
        self._waiting: dict[int, list[T]] = {}  # by length, that whose first item is oldest first

    def add(self, length: int, item: T) -> list[T] | None:
        """A batch, if this item completes one or the oldest can wait no longer; else None."""
        self._waiting.setdefault(length, []).append(item)
        self._n += 1
        if len(self._waiting[length]) == self._size:
            return self._take(length)
        if self._n > WAITING_BATCHES * self._size:
            return self._take(next(iter(self._waiting)))
        return None

    def rest(self) -> Iterator[list[T]]:
        """What still waits, oldest first, a batch for each length."""
        while self._waiting:
            yield self._take(next(iter(self._waiting)))

    def _take(self, length: int) -> list[T]:
        batch = self._waiting.pop(length)
        self._n -= len(batch)
        return batch
