"""Edits of transcripts against references: words or characters, and loops.

Must not know any model: it takes strings.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jiwer

from omni.evaluation.figures import ENGLISH, Unit
from omni.evaluation.text import cut, normalise_pair, unit_of


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


class Scored(NamedTuple):
    """One transcript beside its reference: errors in `unit`, and those of its characters."""

    unit: Unit
    errors: Errors
    chars: Errors


def score(reference: str, hypothesis: str, language: str = ENGLISH) -> Scored:
    """Edits of one pair as written: normalised, and counted in the unit of the reference's script.

    In a script without blanks there is nothing but characters to count: both counts are the same,
    and blanks don't matter.
    """
    said, heard = normalise_pair(reference, hypothesis, language)
    unit = unit_of(said)
    if unit == "characters":
        errors = word_errors(cut(said, unit), cut(heard, unit))
        return Scored(unit, errors, errors)
    return Scored(unit, word_errors(said, heard), char_errors(said, heard))


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
    """Whether a phrase stands `times` times in a row: of one to four words, or of one to twelve
    characters where the script has no blanks."""
    unit = unit_of(text)
    words = cut(text, unit).split()
    for size in range(1, 5 if unit == "words" else 13):
        run = 0
        for a, b in zip(words, words[size:], strict=False):
            run = run + 1 if a == b else 0
            if run >= size * (times - 1):
                return True
    return False
