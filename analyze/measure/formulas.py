"""The numbers of the alignment report, as pure functions of arrays.

Each function states its formula; docs/metrics.md says how to read the result. Rows are
vectors in the LM's embedding space, `groups` tells which utterance a row belongs to.
Must not know about runs, shards, models or pages.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from omni.evaluation.intervals import Estimate

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
TINY = 1e-12


def jackknife(
    statistic: Callable[[Ints], float], n_units: int, blocks: int = 20, seed: int = 0
) -> Estimate:
    """Delete-a-group jackknife interval, for numbers that repeated utterances would bias.

    variance = (g - 1) / g * sum over groups of (number without the group - mean)^2
    (Tukey 1958; Kott 2001); the interval is the value +- 1.96 standard errors.

    Args:
        statistic: takes the indices of the utterances kept and returns the number.
    """
    value = statistic(np.arange(n_units))
    g = min(blocks, n_units)
    if not np.isfinite(value) or g < 3:
        return Estimate(value, value, value)
    order = np.random.default_rng(seed).permutation(n_units)
    parts = [np.delete(order, np.arange(i, n_units, g)) for i in range(g)]
    left_out = np.array([statistic(np.sort(part)) for part in parts])
    error = float(np.sqrt((g - 1) / g * np.nansum((left_out - np.nanmean(left_out)) ** 2)))
    return Estimate(float(value), float(value - 1.96 * error), float(value + 1.96 * error))


@dataclass(frozen=True)
class Moments:
    """Per utterance: sum of its rows (U, C), sum of their squared norms (U,), their number (U,)."""

    sums: Floats
    squares: Floats
    counts: Floats

    @classmethod
    def of(cls, rows: Floats, groups: Ints, n_groups: int) -> "Moments":
        """Collects the moments of `rows` (P, C) by utterance."""
        sums = np.zeros((n_groups, rows.shape[1]))
        np.add.at(sums, groups, rows)
        squares = np.zeros(n_groups)
        np.add.at(squares, groups, (rows.astype(float) ** 2).sum(1))
        return cls(sums, squares, np.bincount(groups, minlength=n_groups).astype(float))

    def centre_and_variance(self, weights: Floats) -> tuple[Floats, float]:
        """Mean (C,) and mean squared distance to it, under one weight an utterance."""
        count = max(float(weights @ self.counts), TINY)
        centre = weights @ self.sums / count
        return centre, max(float(weights @ self.squares) / count - float(centre @ centre), 0.0)


def modality_gap(audio: Moments, text: Moments) -> Callable[[Floats], float]:
    """Distance of the two means over the spread within a modality.

    ||mean(a) - mean(t)|| / sqrt((var(a) + var(t)) / 2), var = mean squared distance to the
    modality's own mean. 0: same centre. After Liang et al. 2022, made scale-free.
    """

    def statistic(weights: Floats) -> float:
        centre_a, var_a = audio.centre_and_variance(weights)
        centre_t, var_t = text.centre_and_variance(weights)
        spread = np.sqrt((var_a + var_t) / 2)
        distance = float(np.linalg.norm(centre_a - centre_t))
        return float(distance / spread) if spread > 1e-9 else float("nan")

    return statistic


def domain_auc(
    audio: Floats, text: Floats, groups_a: Ints, groups_t: Ints, folds: int = 5
) -> Callable[[Floats], float]:
    """Area under the ROC curve of a logistic probe that tells audio rows from text rows.

    Out-of-fold scores, folds by utterance (no utterance is in both halves), rows scaled
    to unit variance, L2 penalty 1. 0.5: can't be told apart; 1: separable by a plane.
    """
    rows = np.concatenate([audio, text]).astype(float)
    labels = np.concatenate([np.ones(len(audio)), np.zeros(len(text))])
    groups = np.concatenate([groups_a, groups_t])
    n_folds = min(folds, len(np.unique(groups)))
    if n_folds < 2:
        return lambda weights: float("nan")
    scores = np.zeros(len(rows))
    for fit, held in GroupKFold(n_folds).split(rows, labels, groups):
        if len(np.unique(labels[fit])) < 2:
            return lambda weights: float("nan")
        mean, scale = rows[fit].mean(0), rows[fit].std(0) + 1e-6
        probe = LogisticRegression(max_iter=300).fit((rows[fit] - mean) / scale, labels[fit])
        scores[held] = probe.decision_function((rows[held] - mean) / scale)
    return lambda weights: weighted_auc(scores, labels, weights[groups])


def weighted_auc(scores: Floats, labels: Floats, weights: Floats) -> float:
    """P(score of a positive > score of a negative), ties half, under a weight a row."""
    values, place = np.unique(scores, return_inverse=True)
    positive = np.bincount(place, weights * labels, minlength=len(values))
    negative = np.bincount(place, weights * (1 - labels), minlength=len(values))
    below = np.cumsum(negative) - negative
    total = positive.sum() * negative.sum()
    return float(positive @ (below + 0.5 * negative) / total) if total > 0 else float("nan")


def linear_cka(x: Floats, y: Floats, debiased: bool = True) -> float:
    """Linear centred kernel alignment of paired rows x (n, p), y (n, q).

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = x x^T, L = y y^T (Kornblith et al.
    2019). `debiased` takes the unbiased HSIC of Song et al. 2012, which is about 0 for
    unrelated rows even where n is smaller than p; it needs n >= 4.
    """
    n = len(x)
    if n < (4 if debiased else 2):
        return float("nan")
    x, y = x.astype(float) - x.mean(0), y.astype(float) - y.mean(0)
    k, m = x @ x.T, y @ y.T
    hsic = _unbiased_hsic if debiased else lambda p, q: float((p * q).sum())
    across, first, second = hsic(k, m), hsic(k, k), hsic(m, m)
    # Rows that are all alike have no shape to compare: rounding alone would answer.
    if min(first / max((k * k).sum(), TINY), second / max((m * m).sum(), TINY)) <= 1e-9:
        return float("nan")
    return across / float(np.sqrt(first * second))


def _unbiased_hsic(k: Floats, m: Floats) -> float:
    """Song et al. 2012, equation 5, up to the factor n (n - 3) that cancels in CKA."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    row_k, row_m = k.sum(0), m.sum(0)
    both = row_k.sum() * row_m.sum() / ((n - 1) * (n - 2))
    return float((k * m).sum() + both - 2 * (row_k @ row_m) / (n - 2))


def unit(rows: Floats) -> Floats:
    """Rows scaled to length 1; a zero row stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), TINY)


def centred_cosine(
    a: Floats, b: Floats, mean_a: Floats | None = None, mean_b: Floats | None = None
) -> Floats:
    """Cosines (n, m) of rows a and b after each side's own mean is taken off."""
    mean_a = a.mean(0) if mean_a is None else mean_a
    mean_b = b.mean(0) if mean_b is None else mean_b
    return unit(a - mean_a) @ unit(b - mean_b).T


def retrieval_hits(similarity: Floats, labels: Ints, k: int) -> Floats:
    """For each query (row) 1 if an item of its own label is among the k most similar, else 0.

    `labels` numbers distinct transcripts: an equal sentence said by another voice is right.
    Ties are counted against the query, so rows that are all alike score nothing.
    """
    right = labels[:, None] == labels[None, :]
    best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
    wrong_at_least_as_good = ((similarity >= best) & ~right).sum(1)
    return (wrong_at_least_as_good < k).astype(float)


def permutation_baseline(
    similarity: Floats, labels: Ints, k: int, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Mean and 95th percentile of R@k when the items are dealt to the queries at random."""
    rng = np.random.default_rng(seed)
    rates = []
    for _ in range(draws):
        order = rng.permutation(len(labels))
        rates.append(float(retrieval_hits(similarity[:, order], labels, k).mean()))
    return float(np.mean(rates)), float(np.quantile(rates, 0.95))


def nearest_tokens(rows: Floats, table: Floats, chunk: int = 4096) -> tuple[Ints, Floats]:
    """For each row (P, D) the token of `table` (V, D) with the highest cosine, and that cosine.

    Both are taken in chunks, so that neither 60,000 x 65,536 cosines nor a second copy of a
    large table is ever held. A zero row is nearest to nothing: -1.
    """
    best, cosine = np.full(len(rows), -1), np.full(len(rows), -np.inf, np.float32)
    for first in range(0, len(table), chunk):
        directions = unit(table[first : first + chunk].astype(np.float32)).T
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            found = unit(rows[part].astype(np.float32)) @ directions
            top = found.max(1)
            better = top > cosine[part]
            best[part] = np.where(better, found.argmax(1) + first, best[part])
            cosine[part] = np.maximum(top, cosine[part])
    best[~rows.any(1)] = -1
    return best, cosine


def token_overlap(read: Ints, transcript: Ints) -> tuple[int, int, int, int]:
    """Hits and size for precision, hits and size for recall, of one utterance.

    Precision: of the tokens read (one a soft token), those that occur in the transcript.
    Recall: of the transcript's distinct tokens, those read at least once.
    """
    wanted = np.unique(transcript)
    return (
        int(np.isin(read, wanted).sum()),
        len(read),
        int(np.isin(wanted, read).sum()),
        len(wanted),
    )
