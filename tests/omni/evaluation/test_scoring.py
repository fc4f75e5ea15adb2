"""Counts of edits, the loop detector, the intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.evaluation.intervals import bootstrap, ratio, ratio_interval
from omni.evaluation.scoring import Errors, char_errors, is_repetitive, word_errors
from omni.evaluation.text import normalise


def test_normaliser_needs_no_network_and_folds_spelling_of_numbers() -> None:
    assert normalise("Mr. Smith  Twenty-One books, won't") == "mister smith 21 books will not"


@pytest.mark.parametrize(
    ("reference", "hypothesis", "want"),
    [
        ("a b c", "a b c", Errors(0, 0, 0, 3)),
        ("a b c", "a x c", Errors(1, 0, 0, 3)),
        ("a b c", "a c", Errors(0, 1, 0, 3)),
        ("a b c", "a b c d", Errors(0, 0, 1, 3)),
        ("a b c", "", Errors(0, 3, 0, 3)),
        ("", "a b", Errors(0, 0, 2, 0)),
        ("", "", Errors(0, 0, 0, 0)),
    ],
)
def test_word_errors(reference: str, hypothesis: str, want: Errors) -> None:
    assert word_errors(reference, hypothesis) == want


def test_char_errors() -> None:
    assert char_errors("abc", "abd") == Errors(1, 0, 0, 3)
    assert char_errors("abc", "") == Errors(0, 3, 0, 3)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("set the book by the river", False),
        ("the the the", False),
        ("the the the the", True),
        ("so put it there put it there put it there put it there", True),
        ("put it there put it there", False),
        ("", False),
    ],
)
def test_repetition(text: str, want: bool) -> None:
    assert is_repetitive(text) is want


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=2, max_size=30))
def test_interval_lies_within_the_extremes(pairs: list[tuple[float, int]]) -> None:
    top, bottom = zip(*pairs, strict=True)
    low, high = ratio_interval(top, bottom)
    ratios = [a / b for a, b in pairs]
    assert min(ratios) - 1e-9 <= low <= high <= max(ratios) + 1e-9


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        drawn = ratio(rng.normal(1.0, 1.0, 50), np.ones(50))
        found = bootstrap(drawn, 50, draws=300, seed=seed)
        hits += found.low <= 1.0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99
