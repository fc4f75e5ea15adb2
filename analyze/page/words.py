"""The report in words: does it listen, what stands in the way of believing it.

Rules on numbers, written to be read; must not compute a number or know about pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from analyze.draw.svg import percent
from analyze.measure.table import Number
from omni.evaluation.verdict import CLIFF_ACCURACY, CLIFF_WER, SILENT_GAP, selection_note

NOISE = 0.1  # nats a token that a control may stray from 0
FEW = 20  # utterances


@dataclass(frozen=True)
class Verdict:
    """`level`: "listens", "partly", "deaf" or "unknown"."""

    level: str
    headline: str
    sentences: list[str]


@dataclass(frozen=True)
class Alert:
    """`kind`: "wrong" (the report misleads), "careful" (read with it in mind) or "know"."""

    kind: str
    text: str


class Tile(TypedDict):
    """A number of the verdict card, as shown; against: its control, or empty."""

    name: str
    value: str
    against: str


@dataclass(frozen=True)
class Circumstances:
    """What the rules need to know beside the numbers."""

    utterances: int
    speakers: int
    seen_in_training: bool
    shuffled_training: bool
    checkpoint: str
    chosen_by: str  # the split that chose it, if it is judged here, else ""
    clean: Sequence[str]  # splits that had no say
    finished: bool
    base_model: bool
    single_tokens_of: int
    too_long: str  # a line on utterances that were left out as too long; "" if there are none


def judge(numbers: Sequence[Number]) -> Verdict:
    """The verdict, by the same thresholds as the trainer's and the evaluation's."""
    by_key = {number.key: number for number in numbers}
    gap = by_key["gap_shuffled"]
    if not gap.trained.defined:
        return Verdict(
            "unknown",
            "Too few utterances to tell",
            ["Without a second sentence there is no wrong audio to compare the right one with."],
        )
    value, low, high = gap.trained.value, gap.trained.low, gap.trained.high
    measured = (
        f"The right audio makes each token of the transcript {signed(value)} nats cheaper than "
        f"another utterance's audio (95 % interval {signed(low)} to {signed(high)})"
    )
    against = (
        f"; with the untrained projector it is {signed(gap.untrained.value)}."
        if gap.untrained is not None and gap.untrained.defined
        else "."
    )
    wer, accuracy = by_key["wer"].trained, by_key["token_accuracy"].trained
    crossed = wer.value <= CLIFF_WER if wer.defined else accuracy.value >= CLIFF_ACCURACY
    if low > 0 and value >= SILENT_GAP:
        level = "listens" if crossed else "partly"
        headline = "The model is listening" + ("" if crossed else ", but can't write it down yet")
    else:
        level, headline = "deaf", "The model is not listening"
        measured = (
            f"It does no better with the right audio than with another utterance's: "
            f"{signed(value)} nats a token (95 % interval {signed(low)} to {signed(high)})"
        )
    return Verdict(level, headline, [measured + against, *_writing(by_key), _geometry(by_key)])


def _writing(by_key: Mapping[str, Number]) -> list[str]:
    wer = by_key["wer"].trained
    if not wer.defined:
        return []
    units = by_key["wer"].unit
    return [f"Asked to repeat what it hears, it gets {percent(wer.value)} of the {units} wrong."]


def _geometry(by_key: Mapping[str, Number]) -> str:
    """Whether overlap goes with the listening, and at which of the LM's entrances."""
    landed = [
        f"{percent(number.trained.value)} of the soft tokens are nearest to a token of their own "
        f"transcript{where} ({_controls(number)})"
        for key, where in (("nearest_precision", ""), ("value_precision", " in the value rows"))
        if (number := by_key.get(key)) is not None and _beats_controls(number)
    ]
    match, where = _entrance(by_key, "retrieval_audio_text_1", "value_retrieval")
    if _beats_controls(match):
        luck = "" if match.chance is None else f" (chance {percent(match.chance)})"
        landed.append(
            f"{percent(match.trained.value)} of the utterances find their transcript by their "
            f"means{where}{luck}"
        )
    if landed:
        return f"Audio lands near its own words: {', and '.join(landed)}."
    number = by_key["nearest_precision"]
    return (
        f"Audio does not land on its own words: {percent(number.trained.value)} of the soft tokens "
        f"are nearest to a token of their own transcript ({_controls(number)}). Overlap is not "
        "needed for listening, nor enough for it."
    )


def _controls(number: Number) -> str:
    """Both controls in words, as far as there are any."""
    parts = []
    if number.untrained is not None and number.untrained.defined:
        parts.append(f"untrained {percent(number.untrained.value)}")
    if number.shuffled is not None and number.shuffled.defined:
        parts.append(f"of another's transcript {percent(number.shuffled.value)}")
    return ", ".join(parts) or "no control"


def _beats_controls(number: Number) -> bool:
    """Whether the trained interval lies above those of all controls that there are."""
    others = [e for e in (number.untrained, number.shuffled) if e is not None]
    return number.trained.defined and all(
        other.defined and number.trained.low > other.high for other in others
    )


def alerts(numbers: Sequence[Number], about: Circumstances) -> list[Alert]:
    """What a reader must know before he believes the verdict, the gravest first."""
    grave = ("wrong", "careful", "know")
    found = _doubts_of_circumstances(about) + _doubts_of_numbers(numbers)
    return sorted(found, key=lambda alert: grave.index(alert.kind))


def _doubts_of_circumstances(about: Circumstances) -> list[Alert]:
    rules = (
        (about.seen_in_training, "wrong",
         "These utterances come from a training split: the numbers show memory as well as hearing. "
         "Point --shards at held-out shards."),
        (about.utterances < FEW, "careful",
         f"Only {about.utterances} utterances: the intervals are wide, and too narrow all the same."),
        (about.speakers < 2, "careful",
         "One speaker only: nothing here says how it hears others."),
        (bool(about.chosen_by), "careful",
         f"{selection_note(about.chosen_by, about.clean)}."),
        (not about.finished, "careful",
         f"The run is still going or was cut short; this is its {about.checkpoint} checkpoint."),
        (about.shuffled_training, "know",
         "This run was trained on shuffled pairs, as a control: it has no way to learn to listen."),
        (about.base_model, "know",
         "The LM is a base model: it continues the audio instead of answering, and no chat token is "
         "trained."),
        (bool(about.too_long), "know", f"{about.too_long}."),
        (about.single_tokens_of < about.utterances, "know",
         f"Numbers of single soft tokens use the first {about.single_tokens_of} of the "
         f"{about.utterances} utterances, to bound memory."),
    )  # fmt: skip
    return [Alert(kind, text) for holds, kind, text in rules if holds]


def _doubts_of_numbers(numbers: Sequence[Number]) -> list[Alert]:
    by_key = {number.key: number for number in numbers}
    gap, wer, auc = by_key["gap_shuffled"], by_key["wer"].trained, by_key["domain_auc"].trained
    found = []
    control = gap.untrained
    sure = control is not None and control.defined and (control.low > 0 or control.high < 0)
    if control is not None and sure and abs(control.value) > NOISE:
        text = f"The untrained projector has a gap of {signed(control.value)} nats: it should be about 0, so something beside the audio gives the answer away."
        found.append(Alert("wrong", text))
    mixed = gap.shuffled
    if mixed is not None and mixed.defined and mixed.low > NOISE:
        text = f"Shuffled pairs have a gap of {mixed.value:.2f} nats: it should be about 0."
        found.append(Alert("wrong", text))
    if wer.defined and wer.value > 1:
        text = (
            f"A {by_key['wer'].name.lower()} of {percent(wer.value)}: it writes more than was said."
        )
        found.append(Alert("careful", text))
    if auc.defined and auc.value > 0.95 and gap.trained.defined and gap.trained.low > NOISE:
        text = f"A plane separates audio from text (AUC {auc.value:.2f}) and yet the model listens: don't judge by overlap."
        found.append(Alert("know", text))
    return found


def tiles(numbers: Sequence[Number]) -> list[Tile]:
    """The four numbers of the verdict card, each beside its control.

    Retrieval and landing are shown at the entrance where they are furthest above the wrong pair's.
    """
    by_key = {number.key: number for number in numbers}
    token, token_where = _entrance(by_key, "nearest_precision", "value_precision")
    match, match_where = _entrance(by_key, "retrieval_audio_text_1", "value_retrieval")
    shown = list[Tile]()
    for number, name, share in (
        (by_key["gap_shuffled"], "nats a token, right audio over wrong", False),
        (by_key["wer"], f"of {by_key['wer'].unit} wrong", True),
        (match, f"of utterances find their transcript{match_where}", True),
        (token, f"of soft tokens land on their own words{token_where}", True),
    ):
        if number.trained.defined:
            say = percent if share else signed
            control, name_of = number.untrained, "untrained"
            if control is None:
                control, name_of = number.shuffled, "another's words"
            known = control is not None and control.defined
            against = f"{name_of}: {say(control.value)}" if control is not None and known else ""
            shown.append({"name": name, "value": say(number.trained.value), "against": against})
    return shown


def _entrance(by_key: Mapping[str, Number], own: str, value: str) -> tuple[Number, str]:
    """The number of the entrance (input rows or value rows) where audio does best, and its name."""
    if value in by_key and _lead(by_key[value]) > _lead(by_key[own]):
        return by_key[value], " in the value rows"
    return by_key[own], ""


def signed(value: float) -> str:
    """Two decimals, with a minus sign that is one."""
    return f"{value:.2f}".replace("-", "\u2212")


def _lead(number: Number) -> float:
    """How far the trained value lies above the wrong pair's; NaN counts as nothing."""
    if number.shuffled is None or not number.shuffled.defined or not number.trained.defined:
        return 0.0
    return number.trained.value - number.shuffled.value
