"""Chat rows in which the demo LM answers questions about a text it reads, for an audio to stand there.

Sentences of the demo corpus's grammar, its words in random order, and other words; what is asked is
worded as in tasks/wordings.py, in the wordings for training alone. Must not know how the LM is trained.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from demo_rows import PublicWords, Row, Turn, garbled, lay_out, stretched
from make_demo_corpus import GRAMMAR

from omni.formats.tasks import LETTERS
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer
from tasks.content import _PHRASE
from tasks.corpus import part_of
from tasks.lexicon import COUNTS
from tasks.nothing import NONE_OF_THESE, NOTHING_SAID
from tasks.repeat import repeat_kinds
from tasks.wordings import CONTENT, NOTHING, REPEAT

WORDS = sorted({word for slot in GRAMMAR for word in slot})
HELD_OUT = ("demo-heldout*", "audiobench-mini")  # folders whose sentences nobody trains on
PARTS = ("number", "colour", "place")
LETTERED = ("heard-which", "after", "before", "first", "last", "sentence", *PARTS)
OPEN = ("heard", "after", "before", "first", "last", "count", *PARTS)
# A letter for an option that is named: what a letter means, before it has to be found out.
LOOK_UP = ('Which letter is "{word}"?', 'Which one is "{word}"?', '"{word}" is which?', '"{word}"?')
BUDGET = 2048  # positions of a batch
_POOL = 384  # rows sorted by length together, so that little is padding
_ROOM = 150  # positions of a row of several turns


def held_out_sentences(root: Path) -> set[str]:
    """Sentences below `root` (manifests/) that only judge, in lower case."""
    lines = (
        line
        for name in HELD_OUT
        for folder in root.rglob(name)
        for path in folder.rglob("*.trans.txt")
        for line in path.read_text().splitlines()
    )
    return {line.split(" ", 1)[1].lower() for line in lines}


def grammar_sentences(n: int, seed: int, without: set[str]) -> list[str]:
    """`n` different sentences of the grammar, none of `without`."""
    rng, found = random.Random(seed), dict[str, None]()
    while len(found) < n:
        sentence = " ".join(rng.choice(slot) for slot in GRAMMAR)
        if sentence not in without:
            found[sentence] = None
    return list(found)


class Shares(NamedTuple):
    """What rows are made of. The rest: nothing was said, or one of three words or none.

    repeat, opened, lettered: rows that repeat, ask openly, ask with four options. pointed: a list of
    options, and the letters of several of its words; shared: a list, and several questions that its words
    answer: these two teach letters with few ids to an answer. single: of the rows that ask, those
    of a single turn, as a test has them.
    """

    repeat: float
    opened: float
    pointed: float
    shared: float
    lettered: float
    single: float


# First answers, then answers beside what an LM that hears is mostly asked for.
PHASES = {
    "answer": Shares(0.15, 0.22, 0.05, 0.10, 0.43, 0.2),
    "hear": Shares(0.40, 0.14, 0.03, 0.05, 0.34, 0.4),
}


class AnswerRows:
    """An endless, seeded stream of batches of rows of like length.

    Args:
        sentences: of the grammar, to train on.
        garble: share of rows in which the user is heard drawn out, or with faults.
    """

    def __init__(
        self,
        tok: Tokenizer,
        sentences: Sequence[str],
        documents: list[str],
        seed: int,
        garble: float = 0.0,
    ) -> None:
        self.tok, self.rng, self.garble = tok, random.Random(seed), garble
        self.said_sentences = [s.split() for s in sentences]
        self.public = PublicWords(documents, self.rng)
        self.ids = tok.vocab_size - len(SPECIAL_NAMES)
        (self.blank,) = tok.encode(" ")
        # One id a word, wherever it stands: what the LM points at is one place.
        self.others = [
            w for w in self.public.words
            if len(w) > 1 and len(tok.encode(" " + w)) == len(tok.encode(w)) == 1
        ]  # fmt: skip
        self.slots = {word: slot for slot in GRAMMAR for word in slot}
        self.forms = repeat_kinds("train")
        self._batches: list[list[Row]] = []

    def batch(self, shares: Shares) -> list[Row]:
        """Rows of about `BUDGET` positions."""
        if not self._batches:
            rows = sorted((self.row(shares) for _ in range(_POOL)), key=lambda r: len(r.ids))
            self._batches = [[]]
            for row in rows:
                if (len(self._batches[-1]) + 1) * len(row.ids) > BUDGET:
                    self._batches.append([])
                self._batches[-1].append(row)
            if len(self._batches) > 1:  # the last may be a few rows
                self._batches.pop()
            self.rng.shuffle(self._batches)
        return self._batches.pop()

    def row(self, shares: Shares) -> Row:
        """One row."""
        made: list[Callable[[], Row]] = [
            self._repeating,
            lambda: self._asking(shares, 0.0),
            self._pointing,
            self._sharing,
            lambda: self._asking(shares, 1.0 if self.rng.random() < 0.6 else 0.6),
            self._nothing,
        ]
        weights = shares[:5]
        return self.rng.choices(made, [*weights, 1.0 - sum(weights)])[0]()

    def heard(self, text: str) -> list[int]:
        """The ids of what was said; in `garble` of the rows as they come out of audio: drawn out, with
        faults, or both."""
        ids = self.tok.encode(text)
        if self.rng.random() >= self.garble:
            return ids
        kind = self.rng.random()
        if kind > 0.35:
            ids = stretched(ids, self.rng, self.blank)
        if kind < 0.6:
            ids = garbled(ids, self.rng.uniform(0, 0.25), self.rng, self.ids)
        return ids

    def words(self) -> list[str]:
        """What is asked about: a sentence, its words in random order, or any words."""
        kind, n = self.rng.random(), self.rng.randint(4, 12)
        if kind < 0.5:
            return self.rng.choice(self.said_sentences)
        pool = WORDS if kind < 0.75 else self.others + WORDS
        return self.rng.sample(pool, n) if kind < 0.95 else self.rng.choices(pool, k=n)

    def question(self, kind: str, words: Sequence[str], lettered: bool) -> Turn | None:
        """A question of a kind about words, or None where it can't be asked.

        Args:
            kind: of `CONTENT`.
            lettered: with four options, the answer being a letter.
        """
        found = _MAKERS[kind](self, words) if kind in _MAKERS else self._of_part(kind, words)
        if found is None:
            return None
        asked, answer, wrong = found
        prompt = self.rng.choice(CONTENT[kind].train).replace("{word}", asked)
        return self._lettered(prompt, answer, wrong) if lettered else Turn(prompt, answer)

    # -- rows ----------------------------------------------------------------------------------

    def _repeating(self) -> Row:
        if self.rng.random() < 0.5:
            text = " ".join(self.words())
        else:
            text = self.public.said(20)
        kind = self.rng.random()
        form = "repeat" if kind < 0.6 else self.rng.choice(list(self.forms))
        wordings, answer = self.forms[form]
        said = answer(text.split())
        if not said:
            wordings, said = REPEAT["plain"].train, text
        prompt = self.rng.choice(wordings)
        if form == "repeat":
            prompt = self.rng.choice([prompt, prompt, "Repeat that.", ""])
        return lay_out(self.tok, self.heard(text), [Turn(prompt, said)])

    def _asking(self, shares: Shares, letters: float) -> Row:
        words = self.words()
        heard = self.heard(" ".join(words))
        turns: list[Turn] = []
        room = 1 if self.rng.random() < shares.single else _ROOM
        used = len(heard)
        while used < room or not turns:
            turn = self._any_question(words, self.rng.random() < letters)
            if turn is not None:
                turns.append(turn)
                used += 5 + len(self.tok.encode(turn.prompt)) + len(self.tok.encode(turn.answer))
        return lay_out(self.tok, heard, turns)

    def _any_question(self, words: Sequence[str], lettered: bool) -> Turn | None:
        return self.question(self.rng.choice(LETTERED if lettered else OPEN), words, lettered)

    def _pointing(self) -> Row:
        """A list of options, and which letter each of them has, or which of them a letter has."""
        words = self.words() if self.rng.random() < 0.5 else []
        options = self.rng.sample(WORDS + self.others, 4)
        found = [
            (self.rng.choice(LOOK_UP), option, option) for option in self.rng.choices(options, k=5)
        ]
        return self._one_list(words, options, found)

    def _sharing(self) -> Row:
        """Four words of what was said as options, and several questions that they answer."""
        words = self.words()
        once = {w for w in words if words.count(w) == 1}
        found = [("first", "", words[0]), ("last", "", words[-1])]
        for one, two in itertools.pairwise(words):
            found += [("after", one, two)] * (one in once) + [("before", two, one)] * (two in once)
        answers = sorted({answer for _, _, answer in found if answer in once})
        if len(answers) < 4:
            return self._pointing()
        options = self.rng.sample(answers, 4)
        found = self.rng.sample([f for f in found if f[2] in options], 4)
        asked = [
            (self.rng.choice(CONTENT[kind].train), about, answer) for kind, about, answer in found
        ]
        return self._one_list(words, options, asked)

    def _one_list(
        self, words: Sequence[str], options: Sequence[str], asked: Sequence[tuple[str, str, str]]
    ) -> Row:
        """Several questions (wording, what it is about, answer) to one list of options."""
        first, letters = self._with_options(asked[0][0].replace("{word}", asked[0][1]), options)
        turns = []
        for i, (wording, about, answer) in enumerate(asked):
            prompt = wording.replace("{word}", about) if i else first
            turns.append(Turn(f"{prompt} Which letter?" if i else prompt, letters[answer]))
        return lay_out(self.tok, self.heard(" ".join(words)), turns)

    def _nothing(self) -> Row:
        if self.rng.random() < 0.3:
            options = self.rng.sample(WORDS, 3)
            heard, answer, wrong = "", NONE_OF_THESE, options
            if self.rng.random() < 0.75:
                words = self.rng.choice(self.said_sentences)
                answer = self.rng.choice(words)
                left = [w for w in WORDS if w not in words]
                heard, wrong = " ".join(words), [*self.rng.sample(left, 2), NONE_OF_THESE]
            turn = self._lettered(self.rng.choice(NOTHING["which"].train), answer, wrong)
            return lay_out(self.tok, self.heard(heard), [turn])
        wordings = self.rng.choice([NOTHING["said"].train, REPEAT["plain"].train])
        return lay_out(self.tok, [], [Turn(self.rng.choice(wordings), NOTHING_SAID)])

    def _lettered(self, prompt: str, answer: str, wrong: Sequence[str]) -> Turn:
        """A question with four options, answered by a letter."""
        asked, letters = self._with_options(prompt, [answer, *wrong])
        return Turn(asked, letters[answer])

    def _with_options(self, prompt: str, options: Sequence[str]) -> tuple[str, dict[str, str]]:
        """The prompt with its options in random order, and the letter of each."""
        options = self.rng.sample(options, len(options))
        letters = dict(zip(options, LETTERS, strict=True))
        lines = [f"- {option}={letter}" for option, letter in letters.items()]
        return "\n".join([prompt, *lines]), letters

    # -- questions: what is asked about, the answer, three wrong ones --------------------------

    def _rivals(self, answer: str, words: Sequence[str]) -> list[str]:
        """Three words that were not said, mostly such as could stand there."""
        like = [w for w in self.slots.get(answer, ()) if w not in words]
        pool = like if len(like) >= 3 and self.rng.random() < 0.7 else WORDS
        if answer not in self.slots and self.rng.random() < 0.7:
            pool = self.others
        left = [w for w in pool if w not in words]
        return self.rng.sample(left if len(left) >= 3 else [w for w in WORDS if w not in words], 3)

    def _heard_it(self, words: Sequence[str]) -> "_Asked":
        word = self.rng.choice(words)
        if self.rng.random() < 0.5:
            return word, "yes", []
        return self._rivals(word, words)[0], "no", []

    def _heard_which(self, words: Sequence[str]) -> "_Asked":
        word = self.rng.choice(words)
        return "", word, self._rivals(word, words)

    def _order(self, kind: str, words: Sequence[str]) -> "_Asked | None":
        if kind in ("first", "last"):
            asked, answer = "", words[0 if kind == "first" else -1]
        else:
            ahead, behind = (0, 1) if kind == "after" else (1, 0)
            pairs = [
                (pair[ahead], pair[behind])
                for pair in itertools.pairwise(words)
                if words.count(pair[ahead]) == 1
            ]
            if not pairs:
                return None
            asked, answer = self.rng.choice(pairs)
        among = sorted({w for w in words if w not in (asked, answer)})
        if len(among) >= 3 and self.rng.random() < 0.6:
            return asked, answer, self.rng.sample(among, 3)
        return asked, answer, self._rivals(answer, words)

    def _count(self, words: Sequence[str]) -> "_Asked":
        return "", COUNTS[len(words)], []

    def _sentence(self, words: Sequence[str]) -> "_Asked":
        at = self.rng.randrange(len(words))
        first = min(max(at - self.rng.randrange(_PHRASE), 0), max(len(words) - _PHRASE, 0))
        last = min(first + _PHRASE, len(words))
        said = list(words[first:last])
        wrong = []
        for other in self._rivals(words[at], words):
            said[at - first] = other
            wrong.append(" ".join(said))
        return "", " ".join(words[first:last]), wrong

    def _of_part(self, part: str, words: Sequence[str]) -> "_Asked | None":
        said = [w for w in words if part_of(w) == part]
        if len(said) != 1:
            return None
        rivals = [w for w in self.slots if part_of(w) == part and w != said[0]]
        return "", said[0], self.rng.sample(rivals, 3)


_Asked = tuple[str, str, list[str]]
_MAKERS: dict[str, Callable[[AnswerRows, Sequence[str]], _Asked | None]] = {
    "heard": AnswerRows._heard_it,
    "heard-which": AnswerRows._heard_which,
    "after": lambda rows, words: rows._order("after", words),
    "before": lambda rows, words: rows._order("before", words),
    "first": lambda rows, words: rows._order("first", words),
    "last": lambda rows, words: rows._order("last", words),
    "count": AnswerRows._count,
    "sentence": AnswerRows._sentence,
}
