"""What an evaluation yields, key by key: figures of a split, of an utterance, their intervals.

They go into metrics.jsonl, `omni-eval --json`, the verdict and the report; who asks for a key that
is not here fails the type check. Must not know how any of them is computed.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, NotRequired, cast

from typing_extensions import TypedDict

# What an error rate counts: words where the script puts blanks between them, else characters.
Unit = Literal["words", "characters"]
ENGLISH = "en"  # the language of a run that names none
Interval = tuple[float, float]


class Intervals(TypedDict, total=False):
    """95 % bootstrap intervals, by the name of their figure."""

    ce: Interval
    token_accuracy: Interval
    gap_shuffled: Interval
    wer: Interval
    cer: Interval
    ce_cascade: Interval
    gap_cascade: Interval
    wer_cascade: Interval
    cer_cascade: Interval


class UtteranceFigures(TypedDict):
    """Of one utterance; what follows `bytes` only where it was decoded, `…cascade` where compared.

    words: units of the reference, as `unit` says; errors: substitutions, deletions, insertions of
    units. chars, char_errors: the same of characters, in sum. ce: nats a target token.
    """

    id: str
    n_tokens: int
    ce: float
    bytes: int
    ce_shuffled: NotRequired[float]
    reference: NotRequired[str]
    hypothesis: NotRequired[str]
    unit: NotRequired[Unit]
    words: NotRequired[int]
    errors: NotRequired[list[int]]
    chars: NotRequired[int]
    char_errors: NotRequired[int]
    cascade: NotRequired[str]
    ce_cascade: NotRequired[float]
    errors_cascade: NotRequired[list[int]]
    char_errors_cascade: NotRequired[int]


class Example(TypedDict):
    """A decode to show. wer: its error rate, in units of its own."""

    id: str
    reference: str
    hypothesis: str
    wer: float
    cascade: NotRequired[str]


class Figures(TypedDict):
    """Of one split. A figure that can't be had is missing; see `omni.evaluation.evaluate`."""

    n: int
    n_tokens: int
    token_accuracy: float
    ce: float
    n_decoded: int
    intervals: Intervals
    examples: list[Example]
    utterances: NotRequired[list[UtteranceFigures]]
    ce_shuffled: NotRequired[float]
    ce_zero: NotRequired[float]
    ce_mean: NotRequired[float]
    ce_none: NotRequired[float]
    gap_shuffled: NotRequired[float]
    gap_zero: NotRequired[float]
    gap_mean: NotRequired[float]
    gap_none: NotRequired[float]
    bits_per_byte: NotRequired[float]
    unit: NotRequired[Unit]
    wer: NotRequired[float]
    wer_s: NotRequired[float]
    wer_d: NotRequired[float]
    wer_i: NotRequired[float]
    cer: NotRequired[float]
    empty_rate: NotRequired[float]
    repetition_rate: NotRequired[float]
    ce_cascade: NotRequired[float]
    gap_cascade: NotRequired[float]
    wer_cascade: NotRequired[float]
    cer_cascade: NotRequired[float]


class Kept(TypedDict):
    """Error rates of the same transcripts: of the run that a run started from, and its own."""

    parent: str
    before: float
    after: float


class Judged(Figures):
    """Figures with what they mean in words, as `omni-eval --json` writes them.

    selection: only of the split that chose the checkpoint. kept: with `--retention`.
    """

    verdict: str
    cascade_verdict: NotRequired[str]
    selection: NotRequired[str]
    kept: NotRequired[Kept]


class Headline(NamedTuple):
    """The error rate a split is judged by. key: its name among the figures; name: "WER" or "CER".

    cascade: the same of Whisper's own transcripts, or None.
    """

    key: Literal["wer", "cer"]
    name: str
    rate: float
    cascade: float | None


def headline(figures: Figures) -> Headline | None:
    """WER, or CER where the split's script has no blanks; None where nothing was decoded or said."""
    if "wer" in figures:
        return Headline("wer", "WER", figures["wer"], figures.get("wer_cascade"))
    if "cer" in figures:
        return Headline("cer", "CER", figures["cer"], figures.get("cer_cascade"))
    return None


def without_utterances(figures: Figures) -> Figures:
    """A copy without the list of utterances: what metrics.jsonl keeps."""
    kept = figures.copy()
    kept.pop("utterances", None)
    return kept


def as_numbers(figures: Mapping[str, object]) -> dict[str, float]:
    """The figures that are a number, by key: for tables that show whatever is there."""
    return {k: v for k, v in figures.items() if isinstance(v, int | float)}


def as_intervals(intervals: Intervals) -> dict[str, Interval]:
    """The intervals that there are, by key."""
    return cast(dict[str, Interval], dict(intervals))
