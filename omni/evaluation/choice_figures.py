"""From scores of four-option questions to figures: shares of right answers, controls, intervals.

What is counted stands here and nowhere else. A question is asked in four rotations; its unit is the
question, never the rotation, for the four are answered alike. Must not know a model, nor how the scores
came about.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from omni.evaluation.figures import Interval
from omni.evaluation.intervals import mcnemar, wilson
from omni.formats.tasks import LETTERS, Task, key_counts, lopsided

RIGHT, PRIOR = "right", "prior"  # its own audio; audio without content (see choices.py)
DEAF = ("blind", "shuffled", "noise")  # controls in which nothing can be heard
CONTROLS = (*DEAF, "cascade", "transcript")
# What a table of figures says, by key: shares of a group, then its controls.
SHARE_WORDS = {
    "accuracy": "right, mean of four rotations",
    "strict": "right in all four rotations",
    "corrected": "right, less what no content says",
    "text": "right by the option's text",
    "text_corrected": "by text, less what no content says",
    "unanswered": "no answer (counts as wrong)",
}
CONTROL_WORDS = {
    "blind": "no audio",
    "shuffled": "another utterance's audio",
    "noise": "noise",
    "cascade": "reads Whisper's transcript",
    "transcript": "reads the true transcript",
}
NEEDS: tuple[Literal["words", "voice", "sound"], ...] = ("words", "voice", "sound")
CHANCE = 1 / len(LETTERS)
N = len(LETTERS)


class ControlFigures(TypedDict):
    """The same questions under another condition, as `GroupFigures` has them.

    n: questions that could be put so; mcnemar_p: of these, against the right audio (`draw_rotations`).
    """

    n: int
    accuracy: float
    strict: float
    interval: Interval
    mcnemar_p: float
    text: NotRequired[float]


class GroupFigures(TypedDict):
    """Of some questions.

    n: questions; accuracy: share right, mean over rotations; strict: share right in all four;
    interval: Wilson's, 95 %, as if each question were asked once, so never too narrow; scored: what
    `accuracy` counts, "letters", or "text" for a base model; unanswered: share without an answer, which
    counts as wrong; letters: share of answers at A, B, C, D; keys: questions whose key the table has
    there; corrected: `accuracy` after the score on content-free audio is subtracted; text: share right
    by the likelihood of the option's text (sum over its tokens and its end, in nats, the question put
    without options); text_corrected: the same, corrected; verdict: what it means (verdict.py), where
    somebody has asked.
    """

    n: int
    accuracy: float
    strict: float
    interval: Interval
    scored: Literal["letters", "text"]
    unanswered: float
    keys: list[int]
    controls: dict[str, ControlFigures]
    letters: NotRequired[list[float]]
    corrected: NotRequired[float]
    text: NotRequired[float]
    text_corrected: NotRequired[float]
    verdict: NotRequired[str]


class QuestionFigures(TypedDict):
    """Of one question. right: of each rotation; said: the letter in each, "" for none; text_right: by
    the likelihood of the option's text."""

    id: str
    kind: str
    prompt: str
    answer: str
    options: list[str]
    right: list[bool]
    said: NotRequired[list[str]]
    text_right: NotRequired[bool]
    controls: dict[str, list[bool]]


class ChoiceFigures(TypedDict):
    """Of a table's questions: all, by what they need, by kind. alerts: what makes the table no measure
    of hearing."""

    all: GroupFigures
    words: NotRequired[GroupFigures]
    voice: NotRequired[GroupFigures]
    sound: NotRequired[GroupFigures]
    kinds: dict[str, GroupFigures]
    alerts: list[str]
    questions: list[QuestionFigures]


@dataclass(frozen=True)
class Scores:
    """Of n questions, by condition; NaN where there is no score.

    letters: (n, 4, 4), logit by rotation and letter; empty for a base model. texts: (n, 4), log
    likelihood of each option, in the table's order.
    """

    letters: Mapping[str, np.ndarray]
    texts: Mapping[str, np.ndarray]


def choice_figures(
    tasks: Sequence[Task], scores: Scores, put: Mapping[str, np.ndarray]
) -> ChoiceFigures:
    """Figures of these questions.

    Args:
        put: (n,) bool by control: which questions could be put so.
    """
    counted = _Counted(tasks, scores, put)
    every = np.arange(len(tasks))
    needs = np.array([task.needs for task in tasks])
    kinds = np.array([task.kind for task in tasks])
    figures = ChoiceFigures(
        all=counted.group(every),
        kinds={
            str(kind): counted.group(every[kinds == kind]) for kind in sorted({*kinds.tolist()})
        },
        alerts=[said] if (said := lopsided(key_counts(tasks))) else [],
        questions=[counted.question(i) for i in range(len(tasks))],
    )
    for need in NEEDS:
        if (needs == need).any():
            figures[need] = counted.group(every[needs == need])
    return figures


def groups_of(figures: ChoiceFigures) -> dict[str, GroupFigures]:
    """Groups by name, "all" and by need; a single need is all there is."""
    needs: dict[str, GroupFigures] = {need: figures[need] for need in NEEDS if need in figures}
    return needs if len(needs) == 1 else {"all": figures["all"], **needs}


def chosen_letters(logits: np.ndarray) -> np.ndarray:
    """The largest letter, -1 where there is none. logits: (..., 4); returns (...) int64.

    The first of equals, as greedy decoding would: with the key in every place, a habit wins nothing.
    """
    answered = np.isfinite(logits).all(-1)
    return np.where(answered, np.where(np.isfinite(logits), logits, -np.inf).argmax(-1), -1)


def right_letters(logits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n, 4) bool by rotation, of logits (n, 4, 4) and the keys' places in the table (n,)."""
    there = (keys[:, None] + np.arange(N)) % N
    return chosen_letters(logits) == there


def right_texts(likelihoods: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n,) bool: the key alone is likeliest. likelihoods: (n, 4)."""
    own = np.take_along_axis(likelihoods, keys[:, None], 1)
    with np.errstate(invalid="ignore"):
        beaten = (own > likelihoods).sum(-1) == N - 1
    return beaten & np.isfinite(likelihoods).all(-1)


def draw_rotations(tasks: Sequence[Task]) -> np.ndarray:
    """(n,) int64: the rotation in which a question stands in McNemar's test.

    The test wants one answer a question: four rotations of one are no four trials. Which, a hash of the
    question decides, dealt so that the key is at each letter equally often (within one): so two habits,
    always A and always B, have equally many right, wherever the table has its keys.
    """
    marks = [hashlib.sha256(repr(task).encode()).digest() for task in tasks]
    order = sorted(range(len(tasks)), key=lambda i: (marks[i], i))
    drawn = np.zeros(len(tasks), dtype=np.int64)
    for rank, i in enumerate(order):
        drawn[i] = (rank - tasks[i].key) % N
    return drawn


class _Counted:
    """What is right, by condition; letters where there are any, else texts."""

    def __init__(
        self, tasks: Sequence[Task], scores: Scores, put: Mapping[str, np.ndarray]
    ) -> None:
        self.tasks, self.put = tasks, put
        self.keys = np.array([task.key for task in tasks])
        self.drawn = draw_rotations(tasks)
        self.by_letters = bool(scores.letters)
        self.texts = {c: right_texts(x, self.keys) for c, x in scores.texts.items()}
        if self.by_letters:
            self.right = {c: right_letters(x, self.keys) for c, x in scores.letters.items()}
            self.said = chosen_letters(scores.letters[RIGHT])
            self.answered = self.said >= 0  # (n, 4)
        else:
            self.right = {c: np.repeat(x[:, None], N, 1) for c, x in self.texts.items()}
            self.answered = np.isfinite(scores.texts[RIGHT])
        self.corrected = self.text_corrected = None
        if PRIOR in scores.letters:
            less = scores.letters[RIGHT] - scores.letters[PRIOR]
            self.corrected = right_letters(less, self.keys)
        if PRIOR in scores.texts:
            self.text_corrected = right_texts(scores.texts[RIGHT] - scores.texts[PRIOR], self.keys)

    def group(self, at: np.ndarray) -> GroupFigures:
        """Of the questions at these places."""
        right = self.right[RIGHT][at]  # (m, 4)
        found = GroupFigures(
            n=len(at),
            accuracy=float(right.mean()),
            strict=float(right.all(1).mean()),
            interval=wilson(float(right.mean(1).sum()), len(at)),
            scored="letters" if self.by_letters else "text",
            unanswered=1 - float(self.answered[at].mean()),
            keys=np.bincount(self.keys[at], minlength=N).tolist(),
            controls={},
        )
        if self.by_letters:
            said = self.said[at]
            found["letters"] = [float((said == i).mean()) for i in range(N)]
        if self.corrected is not None:
            found["corrected"] = float(self.corrected[at].mean())
        if RIGHT in self.texts:
            found["text"] = float(self.texts[RIGHT][at].mean())
        if self.text_corrected is not None:
            found["text_corrected"] = float(self.text_corrected[at].mean())
        for control in CONTROLS:
            if control in self.put and self.put[control][at].any():
                found["controls"][control] = self._control(control, at[self.put[control][at]])
        return found

    def _control(self, control: str, at: np.ndarray) -> ControlFigures:
        theirs = self.right[control][at]
        mine = self.right[RIGHT][at, self.drawn[at]]
        other = theirs[np.arange(len(at)), self.drawn[at]]
        found = ControlFigures(
            n=len(at),
            accuracy=float(theirs.mean()),
            strict=float(theirs.all(1).mean()),
            interval=wilson(float(theirs.mean(1).sum()), len(at)),
            mcnemar_p=mcnemar(int((mine & ~other).sum()), int((other & ~mine).sum())),
        )
        if control in self.texts:
            found["text"] = float(self.texts[control][at].mean())
        return found

    def question(self, i: int) -> QuestionFigures:
        """Of one question."""
        task = self.tasks[i]
        found = QuestionFigures(
            id=task.id, kind=task.kind, prompt=task.prompt, answer=task.answer,
            options=list(task.options), right=self.right[RIGHT][i].tolist(),
            controls={c: self.right[c][i].tolist() for c in CONTROLS if c in self.put and self.put[c][i]},
        )  # fmt: skip
        if self.by_letters:
            found["said"] = [LETTERS[k] if k >= 0 else "" for k in self.said[i]]
        if RIGHT in self.texts:
            found["text_right"] = bool(self.texts[RIGHT][i])
        return found
