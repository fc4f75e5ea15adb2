"""Questions about the words: was it said, what came after, which of four.

Every question has one right answer by the transcript, or is not asked. Must not know the voice.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tasks.corpus import COUNTABLE, Corpus, order_questions, part_of
from tasks.dice import Dice
from tasks.lexicon import COUNTS
from tasks.sources import Heard
from tasks.wordings import CONTENT

_PHRASE = 6  # words at most of an option that is a piece of a sentence


class Draft(NamedTuple):
    """A question before its options are in their places. wrong: three, or none: an open question."""

    word: str  # what is asked about, "" where nothing is
    answer: str
    wrong: tuple[str, ...] = ()


Maker = Callable[[Heard, Corpus, Dice, bool], Draft | None]


def content_kinds(role: str) -> dict[str, tuple[tuple[str, ...], Maker, bool | None]]:
    """By kind: its wordings for a table's role, its maker, and whether it has options (None: some
    rows have, some are open)."""
    makers: dict[str, tuple[Maker, bool | None]] = {
        "heard": (_heard, False),
        "heard-which": (_heard_which, True),
        **{kind: (_of_order(kind), None) for kind in ("after", "before", "first", "last")},
        "count": (_count, None),
        "sentence": (_sentence, True),
        **{part: (_of_part(part), None) for part in ("number", "colour", "place")},
    }
    return {
        f"content/{kind}": (CONTENT[kind].of(role), maker, options)
        for kind, (maker, options) in makers.items()
    }


def _heard(heard: Heard, corpus: Corpus, dice: Dice, options: bool) -> Draft | None:
    """Yes for a word of it, no for one that sounds like a word of it; as often one as the other."""
    said = _telling(heard, corpus)
    if not said:
        return None
    word = dice.pick(said)
    if dice.below(2):
        return Draft(word, "yes")
    other = corpus.alike(word, dice, 1, without=heard.words)
    return Draft(other[0], "no") if other else None


def _heard_which(heard: Heard, corpus: Corpus, dice: Dice, options: bool) -> Draft | None:
    said = _telling(heard, corpus)
    if not said:
        return None
    word = dice.pick(said)
    return _with_wrong("", word, corpus.alike(word, dice, 3, without=heard.words))


def _of_order(kind: str) -> Maker:
    def make(heard: Heard, corpus: Corpus, dice: Dice, options: bool) -> Draft | None:
        found = [
            q for q in order_questions(heard.words) if q[0] == kind and not corpus.gives_away(*q)
        ]
        if not found:
            return None
        _, asked, answer = dice.pick(found)
        if not options:
            return Draft(asked, answer)
        return _with_wrong(asked, answer, corpus.rivals(kind, asked, answer, heard.words, dice))

    return make


def _count(heard: Heard, corpus: Corpus, dice: Dice, options: bool) -> Draft | None:
    n = len(heard.words)
    if not 1 <= n <= COUNTABLE:
        return None
    if not options:
        return Draft("", COUNTS[n])
    return _with_wrong("", COUNTS[n], [COUNTS[m] for m in corpus.lengths_like(n, dice)])


def _sentence(heard: Heard, corpus: Corpus, dice: Dice, options: bool) -> Draft | None:
    """Four that differ in one word, of a stretch of at most six words around it."""
    words = heard.words
    places = [i for i, word in enumerate(words) if corpus.tells(word)]
    if not places or len(words) < 3:
        return None
    at = dice.pick(places)
    first = min(max(at - dice.below(_PHRASE), 0), max(len(words) - _PHRASE, 0))
    last = min(first + _PHRASE, len(words))
    others = corpus.alike(words[at], dice, 3, without=words)
    said = " ".join(words[first:last])
    wrong = [" ".join([*words[first:at], other, *words[at + 1 : last]]) for other in others]
    return _with_wrong("", said, wrong)


def _of_part(part: str) -> Maker:
    def make(heard: Heard, corpus: Corpus, dice: Dice, options: bool) -> Draft | None:
        said = [word for word in heard.words if part_of(word) == part]
        if len(said) != 1:  # of two, which is meant?
            return None
        if not options:
            return Draft("", said[0])
        return _with_wrong("", said[0], corpus.alike(said[0], dice, 3, without=said))

    return make


def _with_wrong(word: str, answer: str, wrong: Sequence[str]) -> Draft | None:
    """None where there are no three wrong ones that differ."""
    if len({answer, *wrong}) != 4:
        return None
    return Draft(word, answer, tuple(wrong))


def _telling(heard: Heard, corpus: Corpus) -> list[str]:
    return sorted({word for word in heard.words if corpus.tells(word)})


def guessable(answers: Sequence[str]) -> bool:
    """Whether one answer is right so often that nobody need hear anything (all sentences of ten
    words)."""
    return bool(answers) and max(Counter(answers).values()) > 0.4 * len(answers)
