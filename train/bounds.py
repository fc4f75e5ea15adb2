"""Which numbers an option takes: told to the user when it is parsed, and to whoever calls the library.

The one place where a bound stands. Must not know options by name, nor how they are parsed.
"""

from math import inf, isfinite
from typing import NamedTuple

LARGEST = 2**31 - 1  # of a count
LARGEST_SEED = 2**32 - 1  # what every generator takes


class Bounds(NamedTuple):
    """Of a finite number; `above` and `below` leave the bound itself out. whole: none but integers."""

    least: float = 0
    most: float = inf
    above: float = -inf
    below: float = inf
    whole: bool = False

    def hold(self, value: float) -> bool:
        """Whether it is within."""
        inside = self.least <= value <= self.most and self.above < value < self.below
        return isfinite(value) and inside and not (self.whole and value != int(value))

    def __str__(self) -> str:
        """`a whole number of at least 1 and at most 1024`."""
        kind = "a whole number" if self.whole else "a finite number"
        words = [
            f"above {self.above:g}" if self.above >= self.least else f"of at least {self.least:g}"
        ]
        if isfinite(self.below):
            words.append(f"below {self.below:g}")
        elif isfinite(self.most) and not (self.whole and self.most == LARGEST):
            words.append(f"at most {self.most:,.0f}" if self.whole else f"at most {self.most:g}")
        return f"{kind} {' and '.join(words)}"


def whole(least: int = 0, most: int = LARGEST) -> Bounds:
    """A whole number from `least` to `most`."""
    return Bounds(least, most, whole=True)


SEED = whole(0, LARGEST_SEED)
