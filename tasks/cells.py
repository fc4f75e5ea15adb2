"""Which kinds of questions a corpus allows, and how many rows each of them gets.

A cell is what is counted apart: a kind, open or with options. Must not know how rows are drawn.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from omni.formats.tasks import Needs
from tasks import content, nothing, voice
from tasks.content import Draft
from tasks.corpus import Corpus
from tasks.dice import Dice
from tasks.repeat import repeat_kinds
from tasks.shares import apportion
from tasks.sources import Heard

_TRIED = 300  # utterances that show whether a kind can be had, and guessed
_FORMS = {"repeat": 7.0}  # against 1 of each other form of repeating
Make = Callable[[Heard, Dice], Draft | None]


class Cell(NamedTuple):
    """What is counted apart. weight: against the other cells of its share; unit: rows that it has
    a multiple of, where it has options."""

    kind: str
    options: bool
    weight: float
    wordings: tuple[str, ...]
    needs: Needs
    make: Make
    unit: int = 4


def cells_of(heard: Sequence[Heard], corpus: Corpus, role: str) -> dict[str, list[Cell]]:
    """The cells of each share that these utterances allow.

    Args:
        role: "train", or "eval": four options alone.
    """
    found = {
        "repeat": _repeat(role),
        "content": _content(corpus, role),
        "voice": _voice(voice.Readers(heard), role),
        "none": _none(corpus, role),
    }
    tried = Dice("tried").sample(heard, _TRIED)
    out: dict[str, list[Cell]] = {}
    for share, cells in found.items():
        asked = [cell for cell in cells if cell.options or role != "eval"]
        possible = [cell for cell in asked if _can_be_had(cell, heard, tried)]
        if share == "none" and len(possible) < len(asked):
            continue  # the right answer would be the same each time
        if possible:
            out[share] = possible
    return out


def quotas(cells: Sequence[Cell], total: int) -> list[tuple[Cell, int]]:
    """Rows of each cell. Those with options are fours, so that keys can be balanced in each; what
    that leaves over goes to the open ones, or where there are none to the last."""
    whole = sum(cell.weight for cell in cells)
    exact = [total * cell.weight / whole for cell in cells]
    parts = [
        math.floor(n / cell.unit + 1e-9) * cell.unit if cell.options else 0
        for cell, n in zip(cells, exact, strict=True)
    ]
    rest = total - sum(parts)
    opened = [0.0 if cell.options else cell.weight for cell in cells]
    if any(opened):
        parts = [a + b for a, b in zip(parts, apportion(rest, opened), strict=True)]
    else:
        parts[-1] += rest
    return list(zip(cells, parts, strict=True))


def _repeat(role: str) -> list[Cell]:
    return [
        Cell(kind, False, _FORMS.get(kind, 1.0), words, "words", _repeating(answer))
        for kind, (words, answer) in repeat_kinds(role).items()
    ]


def _content(corpus: Corpus, role: str) -> list[Cell]:
    return [
        Cell(kind, chosen, 1.0, words, "words", _about_words(maker, corpus, chosen))
        for kind, (words, maker, options) in content.content_kinds(role).items()
        for chosen in ((False, True) if options is None else (options,))
    ]


def _voice(readers: voice.Readers, role: str) -> list[Cell]:
    makers: dict[str, Make] = {
        "voice/sex": lambda heard, dice: voice.sex(heard),
        "voice/speaker": lambda heard, dice: voice.speaker(heard, readers, dice),
    }
    return [
        Cell(kind, kind == "voice/speaker", 1.0, words, "voice", makers[kind])
        for kind, words in voice.voice_kinds(role).items()
    ]


def _none(corpus: Corpus, role: str) -> list[Cell]:
    words = nothing.nothing_kinds(role)
    which = words["none/which"]
    # One in four of these has "none of these" as its key: chance.
    silent = Cell("none/which", True, 0.25, which, "sound", _which(corpus, spoken=False))
    spoken = Cell("none/which", True, 0.75, which, "sound", _which(corpus, spoken=True), unit=12)
    said = Cell(
        "none/said", False, 1.0, words["none/said"], "sound", lambda heard, _: nothing.said(heard)
    )
    return [said, silent, spoken]


def _repeating(answer: Callable[[list[str]], str]) -> Make:
    def make(heard: Heard, dice: Dice) -> Draft | None:
        said = answer(heard.words)
        return Draft("", said) if said else None

    return make


def _about_words(maker: content.Maker, corpus: Corpus, options: bool) -> Make:
    return lambda heard, dice: maker(heard, corpus, dice, options)


def _which(corpus: Corpus, spoken: bool) -> Make:
    def make(heard: Heard, dice: Dice) -> Draft | None:
        return nothing.which(heard, corpus, dice) if bool(heard.text) == spoken else None

    return make


def _can_be_had(cell: Cell, heard: Sequence[Heard], tried: Sequence[Heard]) -> bool:
    """Whether any utterance allows it, and its answer is not the same nearly everywhere: who always
    says "ten" to a corpus of ten words a sentence has heard nothing."""
    drafts = [cell.make(h, Dice("tried", cell.kind, h.id)) for h in tried]
    answers = [draft.answer for draft in drafts if draft is not None]
    if not answers:  # a rare one
        return any(cell.make(h, Dice("tried", cell.kind, h.id)) for h in heard)
    return not (cell.kind == "content/count" and content.guessable(answers))
