"""What training to hear left of what the LM could do before: with text, and at writing down speech.

Adapters act in rows that hold audio and in no others, so a row of text has the same logits with and
without them, to the bit. That is measured here, not believed. Must not know where rows come from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NotRequired

import numpy as np
import torch
from typing_extensions import TypedDict

from omni.bridge.losses import per_row, token_losses
from omni.bridge.projector import Projector
from omni.bridge.prompt import build_turns, row_limit
from omni.bridge.turns import Template, Turn, lay_out, letter_ids
from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.errors import OmniError
from omni.evaluation import scoring
from omni.evaluation.choice_figures import N, right_letters, right_texts
from omni.evaluation.choices import letter_logits
from omni.evaluation.decode import decode
from omni.evaluation.figures import ENGLISH
from omni.formats.shards import Sample
from omni.formats.tasks import Task, question
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer


class TextKept(TypedDict):
    """Of rows of text alone, with adapters and without (`…_bare`).

    n: rows; bits_per_byte: of the answers, their end token included; questions: those with four
    options; accuracy: share right, mean over rotations; identical: whether every score is the same to
    the bit.
    """

    n: int
    bits_per_byte: float
    bits_per_byte_bare: float
    questions: int
    accuracy: NotRequired[float]
    accuracy_bare: NotRequired[float]
    identical: bool


def text_kept(
    lm: NanoChat,
    tok: Tokenizer,
    tasks: Sequence[Task],
    samples: Mapping[str, Sample],
    template: Template,
    batch_size: int = 32,
    everywhere: bool = False,
) -> TextKept:
    """What an LM that wears adapters makes of rows of text, and what it makes of them without.

    Args:
        tasks: rows of text alone, as they are; of an utterance with its transcript in the audio's place.
        everywhere: the adapters were trained to act in rows of text too (a comparison).

    Raises:
        OmniError: no row; the scores differ, where adapters act in no row of text.
    """
    rows = [row for task in tasks if (row := _text_row(task, samples, template, tok, lm))]
    if not rows:
        raise OmniError("no row of text to measure what was kept by", "the table of tasks")
    reader = _Reader(lm, tok, template, batch_size, everywhere)
    worn = reader.scores(rows)
    with without_adapters(lm):
        bare = reader.scores(rows)
    identical = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(worn, bare, strict=True))
    if not identical and not everywhere:
        raise OmniError(
            "rows of text have other logits with adapters than without",
            f"{len(rows)} rows of the table",
            "report it: adapters must not act where nothing is heard",
        )
    n_bytes = sum(len(row.task.answer.encode()) for row in rows)
    lettered = [row.task for row in rows if row.task.options]
    found = TextKept(
        n=len(rows),
        bits_per_byte=float(worn[0].sum() / np.log(2) / n_bytes),
        bits_per_byte_bare=float(bare[0].sum() / np.log(2) / n_bytes),
        questions=len(lettered),
        identical=identical,
    )
    if lettered:
        found["accuracy"] = reader.accuracy(lettered, worn[1])
        found["accuracy_bare"] = reader.accuracy(lettered, bare[1])
    return found


@contextmanager
def without_adapters(lm: NanoChat) -> Iterator[None]:
    """The LM takes off what it wears, and puts it on again."""
    worn = lm.lora
    lm.wear(None)
    try:
        yield
    finally:
        lm.wear(worn)


def word_error_rate(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    samples: Sequence[Sample],
    template: Template,
    batch_size: int = 32,
    language: str = ENGLISH,
    rate: float = WHISPER_FRAMES_PER_SECOND,
) -> float | None:
    """Of greedy transcripts of what is spoken in these samples (characters where the script has no
    blanks); None where nothing is."""
    spoken = [s for s in samples if s.meta["text_norm"]]
    spoken.sort(key=lambda s: (s.features.shape[-2], s.meta["id"]))
    found = decode(
        lm, tok, projector, [s.features for s in spoken], template, batch_size, rate=rate
    )
    pairs = zip(spoken, found, strict=True)
    errors = [
        scoring.score(s.meta["text_norm"], tok.decode(ids).strip(), language).errors
        for s, ids in pairs
    ]
    words = sum(e.n for e in errors)
    return sum(e.total for e in errors) / words if words else None


@dataclass(frozen=True)
class _TextRow:
    """A task and what stands before its prompt."""

    task: Task
    front: str


def _text_row(
    task: Task, samples: Mapping[str, Sample], template: Template, tok: Tokenizer, lm: NanoChat
) -> _TextRow | None:
    """None where it does not fit in a row of the LM."""
    said = samples[task.id].meta["text_norm"] if task.id else ""
    row = _TextRow(task, f"{said} " if task.id else "")
    turns = [(Turn(row.front + question(task).prompt, task.answer),)]
    (layout,) = lay_out(turns, [], template, tok)
    return row if layout.length <= row_limit(lm) else None


@dataclass(frozen=True)
class _Reader:
    """Scores rows of text."""

    lm: NanoChat
    tok: Tokenizer
    template: Template
    batch_size: int
    heard: bool

    @torch.inference_mode()
    def scores(self, rows: Sequence[_TextRow]) -> tuple[np.ndarray, np.ndarray]:
        """Nats of each answer (n,), and of the questions among them the letters' logits (m, 4, 4), or
        for a base model the likelihoods of the options (m, 1, 4)."""
        base = self.template.kind == "base"
        blank = " " if base else ""
        nll = self._nll([Turn(r.front + r.task.prompt, blank + r.task.answer) for r in rows])
        lettered = [row for row in rows if row.task.options]
        if base:
            turns = [
                Turn(r.front + r.task.prompt, blank + o) for r in lettered for o in r.task.options
            ]
            return nll, -self._nll(turns).reshape(len(lettered), 1, N)
        turns = [Turn(r.front + question(r.task, k).prompt) for r in lettered for k in range(N)]
        return nll, self._letters(turns).reshape(len(lettered), N, N)

    def accuracy(self, tasks: Sequence[Task], scores: np.ndarray) -> float:
        """Mean over rotations."""
        keys = np.array([task.key for task in tasks])
        if self.template.kind == "base":
            return float(right_texts(scores[:, 0], keys).mean())
        return float(right_letters(scores, keys).mean())

    def _nll(self, turns: Sequence[Turn]) -> np.ndarray:
        def measure(rows: Sequence[tuple[Turn]]) -> np.ndarray:
            batch = build_turns(self.lm, self.tok, None, rows, self.template, heard=self.heard)
            losses = token_losses(self.lm, batch)
            return per_row(losses.nll, losses.row, len(rows))

        return self._in_batches(turns, measure)

    def _letters(self, turns: Sequence[Turn]) -> np.ndarray:
        ids = letter_ids(self.tok) if turns else []

        def measure(rows: Sequence[tuple[Turn]]) -> np.ndarray:
            batch = build_turns(self.lm, self.tok, None, rows, self.template, heard=self.heard)
            return letter_logits(self.lm, batch, ids)

        return self._in_batches(turns, measure)

    def _in_batches(
        self, turns: Sequence[Turn], measure: Callable[[Sequence[tuple[Turn]]], np.ndarray]
    ) -> np.ndarray:
        size = self.batch_size
        cuts = range(0, len(turns), size)
        parts = [measure([(turn,) for turn in turns[at : at + size]]) for at in cuts]
        return np.concatenate(parts) if parts else np.zeros(0)
