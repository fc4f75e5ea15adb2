"""Numbers with their 95 % intervals, by resampling utterances.

Utterances, not tokens, are drawn: tokens of one utterance stand together. Must not know what the
numbers are of.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weights = NDArray[np.floating]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; all three are NaN where the number is not defined."""

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """False for too small a sample."""
        return bool(np.isfinite(self.value))


UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))


def bootstrap(
    statistic: Callable[[Weights], float], n_units: int, draws: int = 400, seed: int = 0
) -> Estimate:
    """Percentile bootstrap over utterances (Efron 1979).

    Args:
        statistic: takes one weight an utterance (n_units,) and returns the number.
        n_units: utterances; fewer than 2 give an interval of zero width.
        draws: resamples; each is a multinomial draw of weights that sum to n_units.
    """
    value = statistic(np.ones(n_units))
    if not np.isfinite(value) or n_units < 2:
        return Estimate(value, value, value)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=draws).astype(float)
    samples = np.array([statistic(w) for w in weights])
    samples = samples[np.isfinite(samples)]
    low, high = np.quantile(samples, [0.025, 0.975]) if len(samples) else (value, value)
    return Estimate(float(value), float(low), float(high))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Callable[[Weights], float]:
    """A weighted ratio of sums over utterances, ready for `bootstrap`."""
    top, bottom = np.asarray(numerator, float), np.asarray(denominator, float)

    def statistic(weights: Weights) -> float:
        total = float(weights @ bottom)
        return float(weights @ top) / total if total > 0 else float("nan")

    return statistic


def ratio_interval(
    numerator: Sequence[float] | Weights, denominator: Sequence[float] | Weights
) -> tuple[float, float]:
    """95 % interval of sum(numerator) / sum(denominator), one of each an utterance."""
    found = bootstrap(ratio(numerator, denominator), len(numerator), draws=1000)
    return found.low, found.high


Z95 = 1.959963984540054  # of the normal distribution: 95 % lie within


def wilson(right: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a share (Wilson 1927), which stays inside 0 to 1; (0, 1) for n = 0.

    Args:
        right: of n; broken where several answers to a question share its credit.
        z: standard deviations of the normal distribution: 1.96 for 95 %, 3.29 for 99.9 %.
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided exact p of McNemar's test (1947): whether of two answerers to the same questions one
    is better.

    Args:
        only_one, only_other: questions that the one, and the other, alone had right.
    """
    n = only_one + only_other
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(only_one, only_other) + 1))
    return min(1.0, 2 * tail / 2**n)
