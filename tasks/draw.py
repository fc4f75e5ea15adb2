"""The rows of a cell: drawn over all utterances, no two alike, each letter the key as often as another.

Must not know what is asked, nor how many rows a mix gives a cell.
"""

from collections.abc import Sequence
from typing import NamedTuple

from omni.errors import OmniError
from omni.formats.tasks import LETTERS, Needs, Source, Task
from tasks.cells import Cell
from tasks.content import Draft
from tasks.dice import Dice
from tasks.sources import Heard

_MOST_COPIES = 200  # rounds over the utterances in search of another row
_FAIR_TRIES = 3  # rounds after which an utterance that gave no row is left alone


def draw(cell: Cell, n: int, heard: Sequence[Heard], seed: int) -> list[Task]:
    """`n` rows of a cell.

    Raises:
        OmniError: there are not so many different ones.
    """
    return _placed(cell, _drafts(cell, n, heard, seed), seed)


def task_of(
    heard: Heard,
    kind: str,
    prompt: str,
    answer: str,
    options: tuple[str, ...],
    needs: Needs,
    source: Source,
) -> Task:
    """A row about an utterance."""
    return Task(heard.id, heard.split, kind, prompt, answer, options, needs, source, heard.licence)


class _Drafted(NamedTuple):
    heard: Heard
    prompt: str
    draft: Draft


def _drafts(cell: Cell, n: int, heard: Sequence[Heard], seed: int) -> list[_Drafted]:
    """`n` different rows of a cell, over as many utterances as there are."""
    name = (seed, cell.kind, cell.options)
    left = Dice(*name).shuffled(heard)
    found: dict[tuple[str, str, str], _Drafted] = {}
    able: set[str] = set()
    for copy in range(_MOST_COPIES):
        before = len(found)
        for one in left:
            if len(found) == n:
                return list(found.values())
            dice = Dice(*name, one.id, copy)
            draft = cell.make(one, dice)
            if draft is None:
                continue
            able.add(one.id)
            prompt = dice.pick(cell.wordings).replace("{word}", draft.word)
            found.setdefault((one.id, prompt, draft.answer), _Drafted(one, prompt, draft))
        if copy == _FAIR_TRIES:  # the others never will, or so seldom that it is not worth the time
            left = [one for one in left if one.id in able]
        if copy > 4 * _FAIR_TRIES and len(found) == before:
            break
    if len(found) < n:
        shape = "with options" if cell.options else "open"
        raise OmniError(
            f"only {len(found):,} different rows of {cell.kind} ({shape}), {n:,} are wanted", "--rows",
            f"ask for fewer rows, or less {cell.kind.partition('/')[0]} with --shares",
        )  # fmt: skip
    return list(found.values())


def _placed(cell: Cell, drafted: Sequence[_Drafted], seed: int) -> list[Task]:
    """Rows with their options in place: each letter is the key as often as the others, in every four
    rows of a cell."""
    rows = []
    letters: list[int] = []
    for at, (heard, prompt, draft) in enumerate(drafted):
        dice = Dice(seed, "place", cell.kind, at // 4)
        if at % 4 == 0:
            letters = dice.shuffled(range(len(LETTERS)))
        options: tuple[str, ...] = ()
        if draft.wrong:
            wrong = Dice(seed, "order", cell.kind, heard.id, at).shuffled(draft.wrong)
            wrong.insert(letters[at % 4], draft.answer)
            options = tuple(wrong)
        rows.append(
            task_of(heard, cell.kind, prompt, draft.answer, options, cell.needs, "template")
        )
    return rows
