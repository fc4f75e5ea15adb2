"""All that a table of tasks tells of a run: its questions, whether they are obeyed, what was kept.

`omni-eval --tasks` and the report come here, so that both say the same. Must not know where tables and
samples come from, nor how figures are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired

from omni.bridge.projector import Projector
from omni.bridge.turns import Template
from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.evaluation.choice_figures import CONTROLS, ChoiceFigures
from omni.evaluation.choices import Transcribe, score_choices
from omni.evaluation.curve import CurvePoint, scale_curve
from omni.evaluation.figures import ENGLISH
from omni.evaluation.obedience import Obedience, Wordings, obedience, wordings
from omni.evaluation.retention import TextKept, text_kept
from omni.evaluation.verdict import add_choice_verdicts
from omni.formats.shards import Sample
from omni.formats.tasks import Tasks
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer


class TableFigures(ChoiceFigures):
    """Figures of a table's questions, with their verdicts.

    obedience: missing where nothing was answered in full; wordings: where no kind has two; curve, text:
    where they were not asked for.
    """

    obedience: NotRequired[Obedience]
    wordings: NotRequired[Wordings]
    curve: NotRequired[list[CurvePoint]]
    text: NotRequired[TextKept]


@dataclass(frozen=True)
class Wanted:
    """What is measured, and how.

    limit: questions at most, evenly spaced; decode_limit: answers in full at most, 0 for none (None:
    all of both). transcribe: Whisper's decoder, where the cascade is wanted. curve: over the adapters'
    scale; text: what was kept of rows of text; both want an LM that wears adapters. everywhere: these
    act in rows of text too. rate: frames a second.
    """

    batch_size: int = 32
    limit: int | None = None
    decode_limit: int | None = None
    controls: Sequence[str] = tuple(c for c in CONTROLS if c != "cascade")
    transcribe: Transcribe | None = None
    curve: bool = False
    text: bool = False
    everywhere: bool = False
    language: str = ENGLISH
    rate: float = WHISPER_FRAMES_PER_SECOND


def judge_table(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    tasks: Tasks,
    samples: Mapping[str, Sample],
    template: Template,
    wanted: Wanted,
) -> TableFigures:
    """Put a table's questions to an LM that hears.

    Args:
        samples: by id; every utterance that the table asks about.

    Raises:
        OmniError: as `score_choices` and `text_kept`.
    """
    w, rows = wanted, tasks.rows
    fixed = (lm, tok, projector, rows, samples, template, w.batch_size)
    controls = [*w.controls, *(["cascade"] if w.transcribe else [])]
    scored = score_choices(*fixed, w.limit, controls, transcribe=w.transcribe, language=w.language)
    found = TableFigures(**scored)
    if tasks.header["shuffled"]:
        found["alerts"].append("its questions were given to other utterances, as a control")
    add_choice_verdicts(found)
    answers = w.limit if w.decode_limit is None else w.decode_limit
    if answers != 0:
        obeyed = obedience(*fixed, answers, w.language, w.rate)
        if obeyed is not None:
            found["obedience"] = obeyed
    if template.kind != "base":
        worded = wordings(*fixed, w.limit)
        if worded is not None:
            found["wordings"] = worded
    if w.curve:
        found["curve"] = scale_curve(*fixed, w.limit, answers, w.language, w.rate)
    if w.text:
        found["text"] = text_kept(lm, tok, rows, samples, template, w.batch_size, w.everywhere)
    return found
