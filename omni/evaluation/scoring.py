"""Figures of transcripts: WER and CER with their parts, repetition, bootstrap intervals.

Must not know any model: it takes strings and arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jiwer
import numpy as np
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer


@dataclass(frozen=True)
class Errors:
    """Edit counts of one transcript: substitutions, deletions, insertions, reference length."""

    s: int
    d: int
    i: int
    n: int

    @property
    def total(self) -> int:
        """All edits; total / n is the error rate."""
        return self.s + self.d + self.i


def normalise(text: str) -> str:
    """Whisper's English normaliser: lower case, no punctuation, numbers as digits.

    Its table of British spellings is a file on the hub; it is left empty, so that a figure does
    not depend on a network: "colour" and "color" count as different.
    """
    return _normaliser()(text)


def word_errors(reference: str, hypothesis: str) -> Errors:
    """Word edits of one normalised pair."""
    if not reference or not hypothesis:  # jiwer has no alignment with nothing
        n, m = len(reference.split()), len(hypothesis.split())
        return Errors(0, n, m, n)
    out = jiwer.process_words(reference, hypothesis)
    return Errors(out.substitutions, out.deletions, out.insertions, len(reference.split()))


def char_errors(reference: str, hypothesis: str) -> Errors:
    """Character edits of one normalised pair, spaces included."""
    if not reference or not hypothesis:
        return Errors(0, len(reference), len(hypothesis), len(reference))
    out = jiwer.process_characters(reference, hypothesis)
    return Errors(out.substitutions, out.deletions, out.insertions, len(reference))


def is_repetitive(text: str, times: int = 4) -> bool:
    """Whether a phrase of one to four words stands `times` times in a row."""
    words = text.split()
    for size in range(1, 5):
        run = 0
        for a, b in zip(words, words[size:], strict=False):
            run = run + 1 if a == b else 0
            if run >= size * (times - 1):
                return True
    return False


def bootstrap(
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray,
    seed: int = 0,
    draws: int = 1000,
) -> tuple[float, float]:
    """95 % percentile interval of sum(numerators) / sum(denominators) over utterances.

    Utterances, not tokens, are drawn with replacement: tokens of one utterance stand together.
    """
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(top), size=(draws, len(top)))
    ratios = top[drawn].sum(1) / np.maximum(bottom[drawn].sum(1), 1e-9)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


@cache
def _normaliser() -> EnglishTextNormalizer:
    return EnglishTextNormalizer({})
