"""What a corpus's words are like: how often each occurs, which sound alike, what else could stand there.

Wrong options come from here. A question is worth asking if who hears nothing gets a quarter of it
right, so a wrong option is as common as the right one, as long, of the same part of the table, and
sounds like it. Must not know how a question is put.
"""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, cached_property

from tasks.dice import Dice
from tasks.lexicon import FUNCTION_WORDS, PARTS
from tasks.sources import Heard

COUNTABLE = 12  # words at most that anybody could count
_GROUP = 8  # words that could be taken for one another
_FEWEST = 4
_KNOWN = 0.4  # share of the answers to a question from which on it need not be heard
_OFTEN = 3  # times that an answer to a question makes it a frequent one


class Corpus:
    """Counts over utterances."""

    def __init__(self, heard: Iterable[Heard]) -> None:
        self._counts: Counter[str] = Counter()
        self._lengths: Counter[int] = Counter()  # utterances of so many words
        # What answers a question of order, by (kind, word asked about): its rivals elsewhere.
        self._answers: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for h in heard:
            words = h.words
            self._counts.update(words)
            if 0 < len(words) <= COUNTABLE:
                self._lengths[len(words)] += 1
            for kind, asked, answer in order_questions(words):
                self._answers[kind, asked][answer] += 1

    @cached_property
    def _telling(self) -> list[str]:
        """As often as they are said, so that a word that is never right is no commoner than one that is."""
        return [w for w in sorted(self._counts) if self.tells(w) for _ in range(self._counts[w])]

    def tells(self, word: str) -> bool:
        """Whether it is worth asking for: no function word, and none of a letter or two."""
        return len(word) > 2 and word not in FUNCTION_WORDS

    def alike(self, word: str, dice: Dice, k: int, without: Iterable[str] = ()) -> list[str]:
        """`k` words that could be taken for `word`, by sound, length, frequency and part; none of
        `without`, and none that sounds the same.

        Fewer where there are no more, and at times where there are: a word that is commoner than its
        rivals is asked about as seldom as the rarest of them, or the commonest of four options would
        be right more often than not.
        """
        gone, mine = {*without, word}, sound(word)
        group = self._groups.get(word, ())
        found = dice.sample([w for w in group if w not in gone and sound(w) != mine], k)
        rarest = min(self._counts[w] for w in [word, *found])
        return found if dice.chance() * self._counts[word] < rarest else []

    def some_alike(self, dice: Dice) -> list[str]:
        """Three words that sound alike, whatever they are; fewer where the corpus has too few."""
        telling = self._telling
        if not telling:
            return []
        word = dice.pick(telling)
        return [word, *self.alike(word, dice, 2)]

    def gives_away(self, kind: str, asked: str, answer: str) -> bool:
        """Whether the answer is known from the question: after "united" it is nearly always "states"."""
        answers = self._answers[kind, asked]
        return answers.total() > 2 and answers[answer] > _KNOWN * answers.total()

    def rivals(
        self, kind: str, asked: str, answer: str, sentence: Sequence[str], dice: Dice
    ) -> list[str]:
        """Three wrong answers to a question of order, or fewer.

        Other words of the same sentence, so that hearing which words were said is not enough; but
        where the answer is one that the same question often has, other answers to it that are as
        frequent: a word of another kind would be told apart by its place alone, without hearing.
        """
        answers, once = self._answers[kind, asked], Counter(sentence)
        mine, sounds = answers[answer], sound(answer)
        if mine >= _OFTEN:
            pool = [w for w, n in sorted(answers.items()) if _band(n) == _band(mine)]
        else:
            pool = sorted(w for w in once if answers[w] < _OFTEN and w != asked and once[w] == 1)
        found = dice.sample([w for w in pool if w != answer and sound(w) != sounds], 3)
        if mine < _OFTEN:
            return found if once[answer] == 1 else []
        rarest = min([mine, *(answers[w] for w in found)])
        return found if dice.chance() * mine < rarest else []

    def lengths_like(self, n: int, dice: Dice) -> list[int]:
        """Three other lengths that sentences have, in words; none where they are so much rarer that
        `n` would be known. Fours of neighbours: which of the four it is, nothing else tells."""
        there = sorted(self._lengths)
        at = next((i for i in range(0, len(there) - 3, 4) if n in there[i : i + 4]), None)
        if at is None:
            return []
        four = there[at : at + 4]
        rarest = min(self._lengths[m] for m in four)
        return [m for m in four if m != n] if dice.chance() * self._lengths[n] < rarest else []

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        """The group of each word worth asking for: as common, about as long, next to each other in
        the alphabet of sounds. Groups, and not each word's own nearest: who is whose rival must not
        tell which of them was said."""
        bands: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for word in sorted(self._counts):
            if self.tells(word):
                bands[part_of(word), _band(self._counts[word])].append(word)
        groups: list[list[str]] = []
        left: list[str] = []
        for key, following in itertools.pairwise([*sorted(bands), ("", 0)]):
            words = left + sorted(bands[key], key=lambda w: (len(w) // 3, sound(w), w))
            if len(words) < _FEWEST and following[0] == key[0]:
                left = words  # too few: they go with those that are twice as common
                continue
            left = []
            n = max(len(words) // _GROUP, 1)
            groups += [words[i * len(words) // n : (i + 1) * len(words) // n] for i in range(n)]
        return {word: tuple(group) for group in groups for word in group}


def order_questions(words: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """(kind, word asked about, answer) of all that can be asked about order, each word once."""
    if len(words) < 4:
        return
    counts = Counter(words)
    yield "first", "", words[0]
    yield "last", "", words[-1]
    for one, two in itertools.pairwise(words):
        if counts[one] == 1:
            yield "after", one, two
        if counts[two] == 1:
            yield "before", two, one


def part_of(word: str) -> str:
    """ "number", "colour" or "place"; "" for all other words."""
    return PARTS.get(word, "")


_SOUNDS = (
    (r"^kn", "n"), (r"^wr", "r"), (r"^wh", "w"), (r"gh", ""), (r"ph", "f"), (r"ck", "k"), (r"sch", "sk"),
    (r"[cq](?=[eiy])", "s"), (r"[cq]", "k"), (r"x", "ks"), (r"z", "s"), (r"e(a|e)", "i"), (r"o(a|e)", "o"),
    (r"oo|ou|ew|ue|wo$", "u"), (r"a(i|y)", "e"), (r"dge?$|ge$", "j"), (r"(?<=..)e$", ""), (r"y", "i"),
    (r"'s?", ""), (r"(.)\1", r"\1"),
)  # fmt: skip


@cache
def sound(word: str) -> str:
    """A rough spelling of how an English word sounds; equal for most words that sound the same."""
    for pattern, by in _SOUNDS:
        word = re.sub(pattern, by, word)
    return word


def _band(count: int) -> int:
    return int(math.log2(count)) if count > 0 else 0
