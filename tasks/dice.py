"""Chance that is the same on every machine and in every version: drawn from words, not from a state.

Must not know what is drawn.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws that depend on `words` alone.

    Python promises for `random()` alone that a seed gives the same numbers in later versions, so
    that all the rest is made of it here.
    """

    def __init__(self, *words: object) -> None:
        self._random = random.Random("\x1f".join(map(str, words))).random

    def chance(self) -> float:
        """A number from 0 up to 1."""
        return self._random()

    def below(self, n: int) -> int:
        """A whole number from 0 to n - 1."""
        return min(int(self._random() * n), n - 1)

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """`k` different places of `items`, in the order drawn; all of them if there are fewer."""
        left = list(items)
        for i in range(min(k, len(left))):
            j = i + self.below(len(left) - i)
            left[i], left[j] = left[j], left[i]
        return left[:k]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All of them in another order."""
        return self.sample(items, len(items))
