"""Questions with four options, put to an LM that hears: scored so that nobody can guess or be lucky.

Each question is asked in all four rotations of its options. The answer is the letter with the largest
logit where the answer begins; beside it stands the option whose text is likeliest as the answer to the
question put without options, which is all that a base model has. The same is measured where nothing can
be heard, and where the words are read: a figure counts as hearing only beside these.

Must not know where tables and samples come from, nor what the figures mean (verdict.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from omni.bridge.losses import per_row, token_losses
from omni.bridge.projector import Projector, Soft, project
from omni.bridge.prompt import Batch, as_soft, build_turns, row_limit
from omni.bridge.turns import Template, Turn, lay_out, letter_ids
from omni.errors import OmniError
from omni.evaluation.cascade import spell
from omni.evaluation.choice_controls import Spread, noise_like, partners, spread_of, without_content
from omni.evaluation.choice_figures import (
    CONTROLS,
    DEAF,
    PRIOR,
    RIGHT,
    ChoiceFigures,
    N,
    Scores,
    choice_figures,
)
from omni.evaluation.figures import ENGLISH
from omni.evaluation.share import ALONE, Share
from omni.formats.shards import Sample
from omni.formats.tasks import Task, key_counts, lopsided, question
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

Transcribe = Callable[[Sequence[np.ndarray], int], list[str]]


def score_choices(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    tasks: Sequence[Task],
    samples: Mapping[str, Sample],
    template: Template,
    batch_size: int = 32,
    limit: int | None = None,
    controls: Sequence[str] = DEAF,
    share: Share = ALONE,
    texts: bool = True,
    corrected: bool = True,
    transcribe: Transcribe | None = None,
    language: str = ENGLISH,
) -> ChoiceFigures:
    """Put a table's four-option questions, and count; deterministic, the same for every `share`.

    Args:
        tasks: rows of a table; those without options or without an utterance are passed over.
        samples: by id; of every utterance that is asked about. All who share hold all of them.
        batch_size: rows a forward pass: four to a question.
        limit: at most so many questions, evenly spaced (None: all).
        controls: of `CONTROLS`; "cascade" wants `transcribe`. Each costs as much as the right audio.
        texts: whether the likelihood of the options' texts is taken too, which doubles the cost; a base
            model has nothing else, so there it always is.
        corrected: whether the scores on content-free audio are taken and subtracted, beside the others.
        transcribe: features and a batch size to plain transcripts, as Whisper's decoder does.
        language: of the transcripts.

    Raises:
        OmniError: no question, an utterance that is not there, letters that are no single tokens, a
            control of another name.
    """
    if unknown := set(controls) - set(CONTROLS):
        raise OmniError(f"no control {min(unknown)!r}", mend=f"choose of {', '.join(CONTROLS)}")
    questions = [task for task in tasks if task.options and task.id]
    if not questions:
        raise OmniError("no question with options about an utterance", "the table of tasks")
    for task in questions:
        if task.id not in samples:
            raise OmniError("a question about an utterance that is not there", task.id)
    letters = [] if template.kind == "base" else letter_ids(tok)
    asked = _in_order(_evenly(questions, limit), samples)
    heard = _Heard(lm, tok, projector, asked, samples, share)
    put = {control: np.ones(len(asked), bool) for control in controls}
    if "shuffled" in controls:
        put["shuffled"] = heard.give_partners(questions)
    if "cascade" in controls:
        if transcribe is None:
            raise OmniError("a cascade without Whisper's transcripts", "score_choices")
        heard.read(transcribe, batch_size, language)
    training = projector.training
    projector.eval()
    scored: dict[str, np.ndarray] = {}
    read: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        asker = _Asker(lm, tok, template, letters, batch_size)
        prior = [PRIOR] if corrected else []
        for condition in (RIGHT, *prior, *(c for c in CONTROLS if c in controls)):
            at = np.flatnonzero(put.get(condition, np.ones(len(asked), bool))).tolist()
            if letters:
                scored[condition] = asker.letters(heard, condition, at)
            if texts or not letters:
                read[condition] = asker.texts(heard, condition, at)
    projector.train(training)
    figures = choice_figures(asked, Scores(scored, read), put)
    said = lopsided(key_counts(questions))  # of the whole table: what is left of it may be uneven
    figures["alerts"] = [said] if said else []
    return figures


def letter_logits(lm: NanoChat, batch: Batch, letters: Sequence[int]) -> np.ndarray:
    """(B, 4): the letters' logits where each row ends. letters: as `letter_ids` gives them."""
    B, T = batch.targets.shape
    last = torch.arange(B, device=lm.device) * T + batch.lengths - 1
    logits = lm.forward_embeds(batch.rows, batch.ve_rows, positions=last, heard=batch.heard)
    return logits[:, list(letters)].double().cpu().numpy()


class _Spoken(NamedTuple):
    """What stands in the audio's place: of a batch's questions in order. heard: as `build_turns`
    takes it."""

    soft: Soft
    heard: bool


@dataclass
class _Heard:
    """What is heard or read under each condition, of the questions asked."""

    lm: NanoChat
    tok: Tokenizer
    projector: Projector
    tasks: Sequence[Task]
    samples: Mapping[str, Sample]
    share: Share

    def __post_init__(self) -> None:
        ids = sorted({task.id for task in self.tasks})
        self.spread: Spread = spread_of([self.samples[key] for key in ids])
        self.partner = [""] * len(self.tasks)
        self.cascade: dict[str, str] = {}

    def give_partners(self, among: Sequence[Task]) -> np.ndarray:
        """Choose whose audio is heard instead; (n,) bool, where there is one."""
        self.partner = partners(self.tasks, among, self.samples)
        return np.array([bool(other) for other in self.partner])

    def read(self, transcribe: Transcribe, batch_size: int, language: str) -> None:
        """Whisper's own transcripts, as the corpus would write them."""
        order = sorted(
            {task.id for task in self.tasks},
            key=lambda key: (self.samples[key].features.shape[-2], key),
        )
        alphabet = set("".join(self.samples[key].meta["text_norm"] for key in order))
        mine = [order[i] for at in self.share.batches(len(order), batch_size) for i in at]
        said = transcribe([self.samples[key].features for key in mine], batch_size) if mine else []
        texts = {k: spell(text, alphabet, language) for k, text in zip(mine, said, strict=True)}
        for part in self.share.gather(texts):
            self.cascade |= part

    def under(self, condition: str, at: Sequence[int]) -> _Spoken:
        """Of the questions at these places."""
        ids = [self.tasks[i].id for i in at]
        if condition == "blind":  # an audio row all the same: what adapters know without any
            return _Spoken(as_soft(self.lm, [[]] * len(at)), True)
        if condition in ("cascade", "transcript"):
            own = condition == "cascade"
            said = [self.cascade[k] if own else self.samples[k].meta["text_norm"] for k in ids]
            return _Spoken(as_soft(self.lm, [self.tok.encode(text) for text in said]), False)
        features = [self._features(condition, i) for i in at]
        return _Spoken(project(self.projector, features, self.lm.device), True)

    def _features(self, condition: str, i: int) -> np.ndarray:
        own = self.samples[self.tasks[i].id]
        if condition == "shuffled":
            return self.samples[self.partner[i]].features
        if condition == "noise":
            return noise_like(own, self.spread)
        return without_content(own, self.spread) if condition == PRIOR else own.features


@dataclass(frozen=True)
class _Asker:
    """Puts questions and takes scores; what does not fit in a row of the LM has none."""

    lm: NanoChat
    tok: Tokenizer
    template: Template
    letter_ids: Sequence[int]
    batch_size: int

    def letters(self, heard: _Heard, condition: str, at: Sequence[int]) -> np.ndarray:
        """(n, 4, 4): the letters' logits where the answer begins, by rotation."""
        rows = [[_turn(question(task, r).prompt) for r in range(N)] for task in heard.tasks]
        return self._score(heard, condition, at, rows, self._letter_logits, (N,))

    def texts(self, heard: _Heard, condition: str, at: Sequence[int]) -> np.ndarray:
        """(n, 4): log likelihood of each option, its end token included, of the open question.

        A sum, so the probability that it is the answer: the same stretch of two options cancels, and a
        rare word in several tokens gains nothing by the last of them.
        """
        blank = " " if self.template.kind == "base" else ""  # there it goes on with a text
        rows = [
            [_turn(task.prompt, blank + option) for option in task.options] for task in heard.tasks
        ]
        return self._score(heard, condition, at, rows, self._likelihoods, ())

    def _score(
        self,
        heard: _Heard,
        condition: str,
        at: Sequence[int],
        rows: Sequence[Sequence[Turn]],
        measure: Callable[[_Spoken, Sequence[Turn]], np.ndarray],
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """`measure` of four rows a question, in whole batches of this share; then all of them."""
        scores = np.full((len(rows), N, *shape), np.nan)
        mine = heard.share.batches(len(at), max(1, self.batch_size // N))
        for places in ([at[k] for k in batch] for batch in mine):
            spoken = heard.under(condition, places)
            fits = self._that_fit(spoken.soft.lengths.tolist(), [rows[i] for i in places])
            if not fits:
                continue
            four = torch.tensor([k for k in fits for _ in range(N)], device=self.lm.device)
            repeated = _Spoken(_pick(spoken.soft, four), spoken.heard)
            turns = [turn for k in fits for turn in rows[places[k]]]
            found = measure(repeated, turns)
            scores[[places[k] for k in fits]] = found.reshape(len(fits), N, *shape)
        parts = heard.share.gather(scores)
        return np.fmax.reduce(parts)  # a question is in one part, and NaN in the others

    def _that_fit(self, n_soft: Sequence[int], rows: Sequence[Sequence[Turn]]) -> list[int]:
        """Places of the questions whose rows all end within the LM's."""
        flat = [(turn,) for four in rows for turn in four]
        counts = [n for n, four in zip(n_soft, rows, strict=True) for _ in four]
        lengths = [layout.length for layout in lay_out(flat, counts, self.template, self.tok)]
        limit = row_limit(self.lm)
        return [k for k in range(len(rows)) if max(lengths[N * k : N * k + N]) <= limit]

    def _letter_logits(self, spoken: _Spoken, turns: Sequence[Turn]) -> np.ndarray:
        rows = [(turn,) for turn in turns]
        batch = build_turns(self.lm, self.tok, spoken.soft, rows, self.template, heard=spoken.heard)
        return letter_logits(self.lm, batch, self.letter_ids)

    def _likelihoods(self, spoken: _Spoken, turns: Sequence[Turn]) -> np.ndarray:
        batch = build_turns(
            self.lm, self.tok, spoken.soft, [(turn,) for turn in turns], self.template,
            heard=spoken.heard,
        )  # fmt: skip
        losses = token_losses(self.lm, batch)
        return -per_row(losses.nll, losses.row, len(turns))


def _turn(prompt: str, answer: str | None = None) -> Turn:
    """A question after audio: a blank stands between."""
    return Turn(f" {prompt}", answer, audio=True)


def _pick(soft: Soft, places: torch.Tensor) -> Soft:
    """The utterances at these places, each as often as it is named."""
    values = None if soft.ve_rows is None else soft.ve_rows[places]
    return Soft(soft.rows[places], values, soft.lengths[places])


def _in_order(tasks: Sequence[Task], samples: Mapping[str, Sample]) -> list[Task]:
    """Neighbours in length share a batch; the rest of the row breaks ties."""
    return sorted(tasks, key=lambda task: (samples[task.id].features.shape[-2], task))


def _evenly(tasks: Sequence[Task], limit: int | None) -> Sequence[Task]:
    if limit is None or limit >= len(tasks):
        return tasks
    return [tasks[i * len(tasks) // limit] for i in range(limit)]
