"""What the demo LM can do with text it never trained on: repeat it, and answer questions about it.

The questions are those of omni-mix, over sentences of the demo corpus's grammar. Must not know how the LM
is trained.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from demo_rows import Row, Turn, lay_out, pad
from torch import Tensor

from omni.bridge.prompt import IGNORED
from omni.formats.tasks import LETTERS, Task, question
from omni.nanochat import NanoChat
from omni.nanochat.tokenizer import Tokenizer
from tasks.cells import cells_of
from tasks.corpus import Corpus
from tasks.draw import draw
from tasks.sources import Heard

_ROWS = 64  # of a forward pass


class Measured(NamedTuple):
    """choices: by kind, four-option accuracy, the mean over rotations; open: by kind, answers right to
    the letter; transcribes: share of all answers but repetitions that begin as the text does."""

    choices: dict[str, float]
    open: dict[str, float]
    transcribes: float

    @property
    def accuracy(self) -> float:
        """Mean over the kinds with options."""
        return sum(self.choices.values()) / len(self.choices)


def measure(lm: NanoChat, tok: Tokenizer, sentences: Sequence[str], role: str, n: int) -> Measured:
    """What the LM answers to questions about unseen sentences.

    Args:
        sentences: of the grammar, some hundreds: how often a word occurs decides what is asked.
        role: "train" or "eval": which wordings.
        n: questions of each kind; a multiple of four.
    """
    heard = [Heard(f"{i:06d}", "s", s, "1", "", "") for i, s in enumerate(sentences)]
    texts = {h.id: h.text for h in heard}
    cells = cells_of(heard, Corpus(heard), "train")
    choices: dict[str, float] = {}
    opened: dict[str, float] = {}
    strays = total = 0
    asked_for = cells_of(heard, Corpus(heard), role) if role == "eval" else cells
    wordings = {(c.kind, c.options): c.wordings for c in asked_for["content"]}
    for cell in cells["content"] + (cells["repeat"] if role == "train" else []):
        words = wordings.get((cell.kind, cell.options)) or wordings.get((cell.kind, True))
        tasks = draw(cell._replace(wordings=words or cell.wordings), n, heard, seed=1)
        kind = cell.kind.removeprefix("content/")
        if cell.options:
            choices[kind] = choice_accuracy(lm, tok, tasks, texts)
        else:
            opened[kind] = open_accuracy(lm, tok, tasks, texts)
        if not kind.startswith("repeat"):
            strays += sum(transcribes(lm, tok, tasks, texts))
            total += len(tasks)
    return Measured(choices, opened, strays / total)


def row_of(tok: Tokenizer, task: Task, text: str, rotation: int = 0) -> Row:
    """A task about a text that is read, the answer being its letter where it has options."""
    asked = question(task, rotation)
    return lay_out(tok, tok.encode(text), [Turn(asked.prompt, asked.key or task.answer)])


def choice_accuracy(
    lm: NanoChat, tok: Tokenizer, tasks: Sequence[Task], texts: dict[str, str]
) -> float:
    """Share of (question, rotation) whose right letter has the largest logit of the four."""
    letters = torch.tensor([tok.encode(letter)[0] for letter in LETTERS])
    rows = [row_of(tok, t, texts[t.id], r) for t in tasks for r in range(len(LETTERS))]
    aims = torch.tensor([first_target(row) for row in rows])
    best = letters[first_logits(lm, rows)[:, letters].argmax(-1)]
    return float((best == aims).float().mean())


def open_accuracy(
    lm: NanoChat, tok: Tokenizer, tasks: Sequence[Task], texts: dict[str, str]
) -> float:
    """Share of answers that greedy decoding would give to the letter."""
    rows = [row_of(tok, t, texts[t.id]) for t in tasks]
    batches = (rows[at : at + _ROWS] for at in range(0, len(rows), _ROWS))
    return sum(sum(exact(lm, batch)) for batch in batches) / len(rows)


def transcribes(
    lm: NanoChat, tok: Tokenizer, tasks: Sequence[Task], texts: dict[str, str]
) -> list[bool]:
    """Whether an answer begins with the text's first word, where that is not the answer."""
    rows = [row_of(tok, t, texts[t.id]) for t in tasks]
    best = first_logits(lm, rows).argmax(-1).tolist()
    starts = [tok.encode(texts[t.id])[0] for t in tasks]
    return [b == s != first_target(r) for b, s, r in zip(best, starts, rows, strict=True)]


def first_target(row: Row) -> int:
    """The first id of a row's answer."""
    return next(t for t in row.targets if t != IGNORED)


@torch.no_grad()
def first_logits(lm: NanoChat, rows: Sequence[Row]) -> Tensor:
    """Logits (N, vocab) where the first answer of each row begins."""
    out = []
    for at in range(0, len(rows), _ROWS):
        ids, targets = pad(rows[at : at + _ROWS])
        first = (targets != IGNORED).int().argmax(1)
        there = torch.arange(len(ids)) * ids.shape[1] + first
        out.append(lm.forward_embeds(*lm.embed(ids), positions=there))
    return torch.cat(out)


@torch.no_grad()
def exact(lm: NanoChat, rows: Sequence[Row]) -> list[bool]:
    """Whether greedy decoding would give all answers of a row to the letter."""
    ids, targets = pad(rows)
    best = lm(ids).argmax(-1)
    return [bool(right) for right in ((best == targets) | (targets == IGNORED)).all(1)]
