"""Chat rows for the demo LM: how one is laid out, and those in which it repeats what it was told.

Must not know what is asked about a text (demo_questions.py), nor how the LM is trained.
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from public_text import normalise, sentences
from torch import Tensor

from omni.bridge.prompt import IGNORED
from omni.bridge.turns import DEFAULT_PROMPT
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer

SHAPES = ((32, 128), (32, 128), (32, 128), (10, 384))  # rows x positions, in turn
REPEAT_SHARE = 0.7  # of the rows of `RepeatRows`


class Row(NamedTuple):
    """ids, and the target of each: the id itself where it is learned, else `IGNORED`; n_heard: ids in
    the place of audio, from the third on."""

    ids: list[int]
    targets: list[int]
    n_heard: int = 0


class Turn(NamedTuple):
    """prompt: as a table of tasks has it, without a blank in front; answer: in words."""

    prompt: str
    answer: str


def lay_out(tok: Tokenizer, heard: Sequence[int], turns: Sequence[Turn]) -> Row:
    """A row of one turn or several. Only answers and their ends are learned.

    Args:
        heard: what stands in the place of audio, in the first turn.
        turns: a prompt behind what was heard gets a blank in front; in later turns it stands alone.
    """
    ids, targets = [tok.special("bos")], [IGNORED]
    for i, turn in enumerate(turns):
        asked = turn.prompt if i or not turn.prompt else f" {turn.prompt}"
        # Text and prompt are encoded apart, as audio and prompt are later.
        head = [tok.special("user_start"), *([] if i else heard), *tok.encode(asked)]
        head += [tok.special("user_end"), tok.special("assistant_start")]
        answer = [*tok.encode(turn.answer), tok.special("assistant_end")]
        ids += head + answer
        targets += [IGNORED] * len(head) + answer
    return Row(ids, targets, len(heard))


def pad(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """ids (B, T) and the id that should follow each (B, T), padded on the right."""
    longest = max(len(row.ids) for row in rows) - 1
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        n = len(row.ids) - 1
        ids[i, :n] = torch.tensor(row.ids[:-1])
        targets[i, :n] = torch.tensor(row.targets[1:])
    return ids, targets


def garbled(ids: list[int], rate: float, rng: random.Random, words: int) -> list[int]:
    """The ids as a poor listener has them: a share of them lost, doubled, mistaken for another of
    `words` ids, or with one more before them."""
    out: list[int] = []
    for i in ids:
        fault = rng.choice(["lose", "double", "mistake", "insert"])
        if rng.random() >= rate:
            out.append(i)
        elif fault == "double":
            out += [i, i]
        elif fault == "mistake":
            out.append(rng.randrange(words))
        elif fault == "insert":
            out += [rng.randrange(words), i]
    return out


def stretched(ids: list[int], rng: random.Random, blank: int) -> list[int]:
    """The ids as they come out of audio, where a word lasts: some of them twice or three times, some
    with `blank` behind them."""
    out: list[int] = []
    for i in ids:
        out += [i] * rng.choice((1, 1, 2, 3)) + [blank] * rng.choice((0, 0, 1, 2))
    return out


class PublicWords:
    """What anybody may say: sentences of public texts, and their words in random order."""

    def __init__(self, documents: list[str], rng: random.Random) -> None:
        self.rng = rng
        self.sentences = [s for s in sentences(documents) if 3 <= len(s.split()) <= 60]
        counts = Counter(word for d in documents for word in normalise(d).split())
        self.words = [w for w, n in counts.items() if n >= 3]
        # The square root lifts rare words: each must be copied, however seldom it is written.
        self.weights = list(accumulate(counts[w] ** 0.5 for w in self.words))

    def said(self, most: int) -> str:
        """A sentence, or words in random order."""
        kind, length = self.rng.random(), self.rng.randint(2, most)
        if kind < 0.35:
            return " ".join(self.rng.choices(self.words, cum_weights=self.weights, k=length))
        words = self.rng.choice(self.sentences).split()
        while len(words) < length:
            words += self.rng.choice(self.sentences).split()
        text = " ".join(words[:length])
        return text if kind > 0.85 else normalise(text) or "yes"


class RepeatRows:
    """An endless, seeded stream of packed lines: documents, and rows that repeat the user."""

    def __init__(
        self, tok: Tokenizer, documents: list[str], seed: int, garble: float = 0.0
    ) -> None:
        self.tok, self.rng, self.garble = tok, random.Random(seed), garble
        self.documents, self.public = documents, PublicWords(documents, self.rng)
        self.words = tok.vocab_size - len(SPECIAL_NAMES)

    def repeat(self, most: int) -> Row:
        """A chat row in which the assistant repeats the user, heard with faults in `garble` of the
        rows; the answer stays right."""
        text = self.public.said(most)
        asked = DEFAULT_PROMPT.strip() if self.rng.random() < 0.6 else ""
        heard = self.tok.encode(text)
        if self.rng.random() < self.garble:
            heard = garbled(heard, self.rng.uniform(0, 1 / 3), self.rng, self.words)
        return lay_out(self.tok, heard, [Turn(asked, text)])

    def document(self, most: int) -> Row:
        """Running text of at most `most` ids, every one of them supervised."""
        at = self.rng.randrange(len(self.documents))
        ids = self.tok.encode(" ".join(self.documents[at : at + 4]))
        ids = [self.tok.special("bos"), *ids][: max(most, 2)]
        return Row(ids, [IGNORED, *ids[1:]])

    def line(self, length: int) -> Row:
        """Rows packed to `length + 1` positions; a document is cropped to fill the rest."""
        ids: list[int] = []
        targets: list[int] = []
        while len(ids) <= length:
            room = length + 1 - len(ids)
            if self.rng.random() < REPEAT_SHARE:
                row = self.repeat(max(3, min(length // 8, 40)))
                if len(row.ids) > room:  # half a repetition teaches nothing
                    row = self.document(room)
            else:
                row = self.document(self.rng.randint(16, length))
            ids, targets = ids + row.ids[:room], targets + row.targets[:room]
        return Row(ids, targets)

    def batch(self, step: int) -> list[Row]:
        """The lines of a step."""
        rows, length = SHAPES[step % len(SHAPES)]
        return [self.line(length) for _ in range(rows)]
