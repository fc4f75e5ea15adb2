"""Utterances to a table of tasks: so many rows of each share, and the same bytes every time.

Must not know how a question is made (content, voice, …) or how rows are laid out for an LM.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from omni.errors import OmniError
from omni.formats.tasks import TASKS_SCHEMA, Input, Task, Tasks, make_tasks
from tasks.cells import cells_of, quotas
from tasks.corpus import Corpus
from tasks.dice import Dice
from tasks.draw import draw, task_of
from tasks.replay import Exchange
from tasks.shares import apportion, scaled
from tasks.sources import Heard, Sources
from tasks.wordings import SELF

Own = Callable[[Sequence[tuple[str, str]]], list[str]]  # (transcript, prompt)s to answers
_WHERE = "--shares"


@dataclass(frozen=True)
class Recipe:
    """What a table is made of.

    role: "train", or "eval": wordings that training never sees, four options alone. strict: refuse a
    share that can't be had; else it goes to the others. shuffled: each row is given to another
    utterance, so that nothing of it can be heard (a control).
    """

    rows: int
    shares: Mapping[str, float]
    seed: int = 0
    role: str = "train"
    strict: bool = False
    shuffled: bool = False


@dataclass(frozen=True)
class Texts:
    """What rows of `self` and `text` come from.

    chats: exchanges to replay; without them `text` is the LM's own answers to transcripts that it
    reads. input: the chats' file. own: the frozen LM's answers.
    """

    chats: Sequence[Exchange] = ()
    input: Input | None = None
    own: Own | None = None


NO_TEXTS = Texts()


def mix(
    sources: Sources,
    recipe: Recipe,
    texts: Texts = NO_TEXTS,
    say: Callable[[str], None] = lambda line: None,
) -> Tasks:
    """The table.

    Args:
        sources: utterances of the recipe's role.
        texts: for `self` and `text`.
        say: told what was left out.

    Raises:
        OmniError: a share that can't be had, or not in so many rows; names it.
    """
    cells = cells_of(sources.heard, Corpus(sources.heard), recipe.role)
    shares = _possible(recipe, set(cells), texts, say)
    counts = dict(zip(shares, apportion(recipe.rows, list(shares.values())), strict=True))
    rows: list[Task] = []
    for share, total in counts.items():
        if share == "text" and texts.chats:
            rows += _chats(total, texts.chats, recipe)
        elif share in ("self", "text"):
            rows += _own(share, total, sources.heard, texts, recipe)
        else:
            for cell, n in quotas(cells[share], total):
                rows += draw(cell, n, sources.heard, recipe.seed)
    rows = _shuffled(rows, recipe) if recipe.shuffled else rows
    used = [texts.input] if texts.input is not None and "text" in counts else []
    return make_tasks(
        {
            "schema": TASKS_SCHEMA,
            "role": "eval" if recipe.role == "eval" else "train",
            "seed": recipe.seed,
            "shares": {share: n / recipe.rows for share, n in counts.items()},
            "shuffled": recipe.shuffled,
            "inputs": [*sources.inputs, *used],
        },
        rows,
    )


def _possible(
    recipe: Recipe, there: set[str], texts: Texts, say: Callable[[str], None]
) -> dict[str, float]:
    """The shares that can be had; refuses, or says, what can't."""
    reasons = {
        "repeat": "no utterance has a transcript",
        "content": "no utterance has words to ask about",
        "voice": "no utterance has a label of its voice",
        "none": "there is no recording without speech (omni-extract --split noise makes some)",
        "self": "there is no LM to answer (--lm)",
        "text": "there are no chats (--chats) and no LM (--lm)",
    }
    judges = recipe.role == "eval"
    if judges:
        reasons |= dict.fromkeys(("repeat", "self", "text"), "a table that judges holds options")
        reasons["voice"] = "no question about the voice has four options here"
    else:
        there |= {"self", "text"} if texts.own else {"text"} if texts.chats else set()
    missing = [share for share in recipe.shares if share not in there]
    for share in missing:
        if recipe.strict:
            what = f"a share of {share} can't be had: {reasons[share]}"
            raise OmniError(what, _WHERE, f"give the others what {share} has")
        say(f"without {share}: {reasons[share]}")
    shares = scaled(recipe.shares, missing)
    if not shares:
        raise OmniError("none of the shares can be had", _WHERE, "; ".join(reasons.values()))
    return shares


def _chats(n: int, chats: Sequence[Exchange], recipe: Recipe) -> list[Task]:
    if n > len(chats):
        mend = "give more of them, or text a smaller share"
        raise OmniError(f"{n:,} rows of text from {len(chats):,} chats", "--chats", mend)
    picked = Dice(recipe.seed, "chats").sample(chats, n)
    return [
        Task("", "", "text", chat.prompt, chat.answer, (), "none", "text", "unknown")
        for chat in picked
    ]


def _own(share: str, n: int, heard: Sequence[Heard], texts: Texts, recipe: Recipe) -> list[Task]:
    """`self`: the LM's answers to the transcript, to be drawn from it by the audio too. `text`: its
    answers to a transcript and a prompt that it reads."""
    if texts.own is None:
        raise OmniError(f"no LM for rows of {share}", "--lm")
    spoken = Dice(recipe.seed, share).shuffled([h for h in heard if h.text])
    wordings = SELF.of(recipe.role)
    if n > len(spoken) * len(wordings):
        what = f"{n:,} rows of {share} from {len(spoken):,} utterances"
        raise OmniError(what, "--rows", f"give {share} a smaller share")
    asked = []
    for i in range(n):
        one, turn = spoken[i % len(spoken)], i // len(spoken)
        first = Dice(recipe.seed, share, one.id).below(len(wordings))
        asked.append((one, wordings[(first + turn) % len(wordings)]))
    answers = texts.own([(one.text, prompt) for one, prompt in asked])
    rows: dict[Task, None] = {}
    for (one, prompt), answer in zip(asked, answers, strict=True):
        if not answer:  # the LM has nothing to say, or does not come to an end: nothing to learn
            continue
        if share == "self":
            rows[task_of(one, "self", prompt, answer, (), "words", "self")] = None
        else:
            text = f"{one.text} {prompt}"
            rows[Task("", "", "text", text, answer, (), "none", "self", one.licence)] = None
    return list(rows)


def _shuffled(rows: Sequence[Task], recipe: Recipe) -> list[Task]:
    """Each row about audio moved on to the utterance of another row, by chance alone: an answer that
    had to be another's would tell what is right by what it is not."""
    order = Dice(recipe.seed, "shuffle").shuffled(sorted(row for row in rows if row.id))
    out = dict.fromkeys(row for row in rows if not row.id)
    for i, row in enumerate(order):
        others = (order[(i + step) % len(order)] for step in range(1, len(order)))
        moved = (
            replace(row, id=o.id, split=o.split, licence=o.licence)
            for o in others
            if o.id != row.id
        )
        found = next((new for new in moved if new not in out), None)
        if found is None:
            raise OmniError("rows about so few utterances can't be shuffled", "--shuffle-pairs")
        out[found] = None
    return list(out)
