"""The best monotone path through a similarity matrix: which text token each soft token is near.

The path is the report's stand-in for a forced alignment: nobody marked the words in time,
it only says which order-keeping pairing is the most similar. Pure functions of arrays.
Must not know runs, models or pictures.
"""

import numpy as np

from analyze.measure.formulas import Floats, Ints


def best_path(similarity: Floats) -> tuple[float, Ints]:
    """Mean similarity along the best monotone path, and the column of each row.

    similarity: (n, m), soft tokens by text tokens. With n >= m the path starts at the first
    text token, ends at the last and steps by 0 or 1, so each text token is met. With n < m
    the roles are swapped: each text token gets one soft token, and a soft token's column is
    the first of its text tokens. Found by dynamic programming in O(n m).
    """
    n, m = similarity.shape
    if n < m:
        score, rows = best_path(similarity.T)
        return score, np.array([int(np.argmax(rows == i)) for i in range(n)])
    totals = _totals(similarity[None])[0]
    path = np.zeros(n, np.int64)
    j = m - 1
    for i in range(n - 1, -1, -1):
        path[i] = j
        if i and j and totals[i - 1, j - 1] > totals[i - 1, j]:
            j -= 1
    return float(totals[-1, -1] / n), path


def path_scores(similarity: Floats, orders: Ints) -> Floats:
    """Best path's mean similarity for each reordering of the text tokens.

    similarity: (n, m); orders: (R, m), each row a permutation of the columns. Returns (R,).
    """
    stack = similarity[:, orders].transpose(1, 0, 2)  # (R, n, m)
    if stack.shape[1] < stack.shape[2]:
        stack = stack.transpose(0, 2, 1)
    return _totals(stack)[:, -1, -1] / stack.shape[1]


def order_advantage(similarity: Floats, rng: np.random.Generator, reorderings: int = 8) -> float:
    """Monotone alignment-path score of one utterance.

    Mean similarity along the best path through the transcript, minus the mean of the same
    with the transcript's tokens in random order. The words are equal on both sides, so only
    agreement in *time order* can make it positive. NaN for fewer than two tokens.
    """
    m = similarity.shape[1]
    if m < 2 or similarity.shape[0] < 2:
        return float("nan")
    shuffled = np.stack([rng.permutation(m) for _ in range(reorderings)])
    scores = path_scores(similarity, np.concatenate([np.arange(m)[None], shuffled]))
    return float(scores[0] - scores[1:].mean())


def _totals(stack: Floats) -> Floats:
    """Best sum of a path that ends in each cell: (R, n, m) with n >= m; -inf out of reach."""
    totals = np.full(stack.shape, -np.inf)
    totals[:, 0, 0] = stack[:, 0, 0]
    for i in range(1, stack.shape[1]):
        stay, step = totals[:, i - 1], np.full(stack.shape[::2], -np.inf)
        step[:, 1:] = totals[:, i - 1, :-1]
        totals[:, i] = np.maximum(stay, step) + stack[:, i]
    return totals
