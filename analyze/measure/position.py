"""Principal components, and what of them is only time position.

The first components of raw Whisper frames are a clock: show them, measure it, take it off.
Pure functions of arrays. Must not know runs, models or pictures.
"""

import numpy as np
from sklearn.decomposition import PCA

from analyze.measure.formulas import TINY, Floats, Ints

MIN_UTTERANCES_AT_A_POSITION = 5  # fewer, and the position's mean would be the frame itself


def fit_pca(rows: Floats, n_components: int = 2) -> PCA:
    """PCA of rows (P, C) by the covariance's eigenvectors: exact, and equal from run to run."""
    n_components = min(n_components, *rows.shape)
    return PCA(n_components, svd_solver="covariance_eigh").fit(rows.astype(np.float64))


def position_r2(values: Floats, positions: Ints, degree: int = 6) -> float:
    """Share of the variance of `values` (P,) that a smooth curve over time explains.

    The curve is a least-squares Legendre polynomial of the frame's position, at most degree 6.
    """
    degree = min(degree, len(np.unique(positions)) - 1)
    if degree < 1 or len(values) <= degree + 1 or np.var(values) <= TINY:
        return float("nan")
    x = 2 * positions / max(int(positions.max()), 1) - 1
    fitted = np.polynomial.Legendre.fit(x, values, degree, domain=[-1, 1])(x)
    return float(1 - np.var(values - fitted) / np.var(values))


def remove_position(frames: Floats, positions: Ints) -> tuple[Floats, np.ndarray]:
    """Takes each position's mean over utterances off frames (P, d).

    Returns the cleaned frames and a mask (P,) of those kept: a position that fewer than five
    frames share has no mean of its own to take off.
    """
    counts = np.bincount(positions)
    sums = np.zeros((len(counts), frames.shape[1]))
    np.add.at(sums, positions, frames)
    means = sums / np.maximum(counts, 1)[:, None]
    kept = counts[positions] >= MIN_UTTERANCES_AT_A_POSITION
    return (frames - means[positions])[kept], kept
