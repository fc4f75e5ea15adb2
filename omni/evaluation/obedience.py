"""Does it answer what is asked, or write down what it hears whatever is asked?

A model that learned to transcribe goes on transcribing: its answers are looked at as they are written,
and the same questions are put in every wording that the table has for them. Must not know where tables
and samples come from, nor what the figures mean.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, NotRequired

from typing_extensions import TypedDict

from omni.bridge.projector import Projector
from omni.bridge.prompt import row_limit
from omni.bridge.turns import Template, Turn, lay_out
from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.evaluation.choices import score_choices
from omni.evaluation.decode import decode
from omni.evaluation.figures import ENGLISH, Interval
from omni.evaluation.intervals import wilson
from omni.evaluation.text import cut, normalise, unit_of
from omni.formats.shards import Sample
from omni.formats.tasks import LETTERS, Task, question
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

_QUOTED = re.compile(r'"([^"]*)"')  # the word that a question asks about
_SHOWN = 8


class Instead(TypedDict):
    """An answer that transcribes: to what, and what was wanted."""

    id: str
    prompt: str
    wanted: str
    answer: str
    said: str


class Obedience(TypedDict):
    """Of greedy answers.

    n: answers of which a transcript would be none; transcribes: share of them that are one
    (`transcribes`), interval: Wilson's, 95 %. open_n, open_right: open questions, and the share answered
    as wanted; options_n, options_letter: questions with options, and the share answered by a letter.
    """

    n: int
    transcribes: float
    interval: Interval
    examples: list[Instead]
    open_n: int
    options_n: int
    open_right: NotRequired[float]
    options_letter: NotRequired[float]


class Wordings(TypedDict):
    """Of four-option questions, each in every wording of its kind.

    kinds: accuracy by kind and wording, of the same questions; best, worst: accuracy if each kind were
    asked in its best, or its worst wording; spread: best less worst; n: questions of kinds that have
    several.
    """

    n: int
    best: float
    worst: float
    spread: float
    kinds: dict[str, dict[str, float]]


def obedience(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    tasks: Sequence[Task],
    samples: Mapping[str, Sample],
    template: Template,
    batch_size: int = 32,
    limit: int | None = None,
    language: str = ENGLISH,
    rate: float = WHISPER_FRAMES_PER_SECOND,
) -> Obedience | None:
    """Let a table's questions be answered in full, open ones and those with options.

    Args:
        tasks: rows; those without an utterance are passed over. An open question whose answer is what
            was said ("repeat that") tells nothing, and is passed over too.
        limit: at most so many, evenly spaced (None: all).

    Returns:
        None where no row is left.
    """
    asked = [t for t in tasks if t.id and not _is_transcript(t, samples[t.id], language)]
    if limit and limit < len(asked):
        asked = [asked[i * len(asked) // limit] for i in range(limit)]
    if not asked:
        return None
    asked.sort(key=lambda task: (samples[task.id].features.shape[-2], task))
    answers = _answers(lm, tok, projector, asked, samples, template, batch_size, rate)
    found = [_judge(t, samples[t.id], a, language) for t, a in zip(asked, answers, strict=True)]
    instead = [one for one in found if one.instead]
    without = [one for one in found if not one.task.options]
    lettered = [one for one in found if one.task.options]
    figures = Obedience(
        n=len(found),
        transcribes=len(instead) / len(found),
        interval=wilson(len(instead), len(found)),
        examples=[_shown(one, samples) for one in instead[:_SHOWN]],
        open_n=len(without),
        options_n=len(lettered),
    )
    if without:
        figures["open_right"] = sum(one.right for one in without) / len(without)
    if lettered:
        letters = sum(one.answer in tuple(LETTERS) for one in lettered)
        figures["options_letter"] = letters / len(lettered)
    return figures


def transcribes(answer: str, said: str, wanted: str = "", language: str = ENGLISH) -> bool:
    """Whether an answer writes down what was said instead of answering.

    It does if more than half of the words said stand in it in their order, two at least or the whole
    of what was said, and it is not what was wanted. Every answer with a WER below 50 % does. In scripts
    without blanks characters are the words.
    """
    unit = unit_of(said)
    heard, own, right = (cut(normalise(text, language), unit) for text in (said, answer, wanted))
    if not heard or own == right:
        return False
    common = _in_order(heard.split(), own.split())
    return 2 * common > len(heard.split()) and (common >= 2 or own == heard)


def wordings(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    tasks: Sequence[Task],
    samples: Mapping[str, Sample],
    template: Template,
    batch_size: int = 32,
    limit: int | None = None,
) -> Wordings | None:
    """Put each four-option question in every wording that the table has for its kind.

    Of the same questions, so that a wording's luck with its own is no difference between wordings.

    Args:
        limit: at most so many questions, evenly spaced (None: all), each in all its wordings.

    Returns:
        None where no kind has two wordings.
    """
    questions = [task for task in tasks if task.options and task.id]
    known: dict[tuple[str, int], list[str]] = {}
    for task in questions:
        worded, words = _wording(task)
        mine = known.setdefault((task.kind, len(words)), [])
        if worded not in mine:
            mine.append(worded)
    questions = [t for t in questions if len(known[t.kind, len(_wording(t)[1])]) > 1]
    if limit and limit < len(questions):
        questions = [questions[i * len(questions) // limit] for i in range(limit)]
    if not questions:
        return None
    put = [
        (replace(task, prompt=_with_words(worded, words)), worded)
        for task in dict.fromkeys(questions)
        for words in [_wording(task)[1]]
        for worded in sorted(known[task.kind, len(words)])
    ]
    scored = score_choices(
        lm, tok, projector, [task for task, _ in put], samples, template, batch_size, controls=(),
        texts=False, corrected=False,
    )  # fmt: skip
    right = {
        (q["id"], q["kind"], q["prompt"], tuple(q["options"])): sum(q["right"]) / len(q["right"])
        for q in scored["questions"]
    }
    kinds: dict[str, dict[str, list[float]]] = {}
    for task, worded in put:
        share = right[task.id, task.kind, task.prompt, task.options]
        kinds.setdefault(task.kind, {}).setdefault(worded, []).append(share)
    return _spread(kinds)


def _spread(kinds: Mapping[str, Mapping[str, Sequence[float]]]) -> Wordings:
    """From shares right by kind and wording."""
    mean = {k: {w: sum(x) / len(x) for w, x in by.items()} for k, by in sorted(kinds.items())}
    n = {kind: max(len(x) for x in by.values()) for kind, by in kinds.items()}
    total = sum(n.values())
    best = sum(n[kind] * max(by.values()) for kind, by in mean.items()) / total
    worst = sum(n[kind] * min(by.values()) for kind, by in mean.items()) / total
    return Wordings(n=total, best=best, worst=worst, spread=best - worst, kinds=mean)


def _wording(task: Task) -> tuple[str, list[str]]:
    """A prompt with its quoted words taken out, and these."""
    return _QUOTED.sub('"…"', task.prompt), _QUOTED.findall(task.prompt)


def _with_words(worded: str, words: Sequence[str]) -> str:
    left = iter(words)
    return re.sub('"…"', lambda _: f'"{next(left)}"', worded)


class _Answered(NamedTuple):
    """right: as wanted; instead: it transcribes."""

    task: Task
    answer: str
    right: bool
    instead: bool


def _answers(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    tasks: Sequence[Task],
    samples: Mapping[str, Sample],
    template: Template,
    batch_size: int,
    rate: float,
) -> list[str]:
    """Greedy answers; "" to what leaves no room for one in the LM's rows."""
    rows = [(Turn(f" {question(task).prompt}", audio=True),) for task in tasks]
    soft = [projector.output_length(samples[task.id].features.shape[-2]) for task in tasks]
    lengths = [row.length for row in lay_out(rows, soft, template, tok)]
    fits = [i for i, length in enumerate(lengths) if length < row_limit(lm)]
    features = [samples[tasks[i].id].features for i in fits]
    said = decode(
        lm, tok, projector, features, template, batch_size, rate=rate, rows=[rows[i] for i in fits]
    )
    answers = [""] * len(tasks)
    for i, ids in zip(fits, said, strict=True):
        answers[i] = tok.decode(ids).strip()
    return answers


def _judge(task: Task, sample: Sample, answer: str, language: str) -> _Answered:
    wanted = task.answer
    if task.options and answer in tuple(LETTERS):  # a letter is an answer, right or wrong
        return _Answered(task, answer, answer == question(task).key, False)
    said = sample.meta["text_norm"]
    right = normalise(answer, language) == normalise(wanted, language)
    return _Answered(task, answer, right, transcribes(answer, said, wanted, language))


def _is_transcript(task: Task, sample: Sample, language: str) -> bool:
    """Whether what is wanted is what was said; of options a letter is wanted."""
    return not task.options and transcribes(task.answer, sample.meta["text_norm"], "", language)


def _shown(one: _Answered, samples: Mapping[str, Sample]) -> Instead:
    task = one.task
    said = samples[task.id].meta["text_norm"]
    return Instead(id=task.id, prompt=task.prompt, wanted=task.answer, answer=one.answer, said=said)


def _in_order(a: Sequence[str], b: Sequence[str]) -> int:
    """Words of the longest sequence that both hold in its order."""
    row = [0] * (len(b) + 1)
    for one in a:
        before = 0
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if one == other else max(row[j], row[j - 1])
    return row[-1]
