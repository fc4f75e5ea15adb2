"""The same questions with adapters turned down and up: where hearing, obeying and transcribing trade.

SALMONN's cure for a model that transcribes whatever it is asked is a lower scale at inference; this shows
what it would cost. Must not know where tables and samples come from.
"""

from collections.abc import Mapping, Sequence
from typing import NotRequired

from typing_extensions import TypedDict

from omni.bridge.projector import Projector
from omni.bridge.turns import Template
from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.evaluation.choices import score_choices
from omni.evaluation.figures import ENGLISH
from omni.evaluation.obedience import obedience
from omni.evaluation.retention import word_error_rate
from omni.formats.shards import Sample
from omni.formats.tasks import Task
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


class CurvePoint(TypedDict):
    """At one scale: accuracy and strict of the four-option questions; transcribes: share of answers that
    do (`omni.evaluation.obedience`); wer: of greedy transcripts of the same utterances."""

    scale: float
    accuracy: float
    strict: float
    transcribes: NotRequired[float]
    wer: NotRequired[float]


def scale_curve(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    tasks: Sequence[Task],
    samples: Mapping[str, Sample],
    template: Template,
    batch_size: int = 32,
    limit: int | None = None,
    decode_limit: int | None = None,
    language: str = ENGLISH,
    rate: float = WHISPER_FRAMES_PER_SECOND,
    scales: Sequence[float] = SCALES,
) -> list[CurvePoint]:
    """Figures at each scale of the adapters that the LM wears; it wears them as before at the end.

    Args:
        limit: at most so many questions, evenly spaced (None: all).
        decode_limit: as many answers, and transcripts, at each scale; 0: none.
    """
    lora = lm.lora
    if lora is None:
        raise ValueError("an LM without adapters has no curve")
    ids = sorted({task.id for task in tasks if task.id})
    if decode_limit is not None and decode_limit < len(ids):
        ids = [ids[i * len(ids) // decode_limit] for i in range(decode_limit)]
    spoken = [samples[key] for key in ids]
    fixed = (lm, tok, projector)
    before, points = lora.scale, list[CurvePoint]()
    try:
        for scale in scales:
            lora.scale = scale
            scored = score_choices(
                *fixed,
                tasks,
                samples,
                template,
                batch_size,
                limit,
                (),
                texts=False,
                corrected=False,
            )["all"]
            points.append(
                CurvePoint(scale=scale, accuracy=scored["accuracy"], strict=scored["strict"])
            )
            if decode_limit == 0:
                continue
            obeyed = obedience(
                *fixed, tasks, samples, template, batch_size, decode_limit, language, rate
            )
            wer = word_error_rate(*fixed, spoken, template, batch_size, language, rate)
            if obeyed is not None:
                points[-1]["transcribes"] = obeyed["transcribes"]
            if wer is not None:
                points[-1]["wer"] = wer
    finally:
        lora.scale = before
    return points
