"""Evidence to page: one HTML file that needs nothing but itself, and the same numbers as JSON.

Must not compute a number. Transcripts come from outside: jinja2 escapes them, and the data block
has no `<` in it.
"""

import base64
import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analyze.draw.svg import Figure, Table, pack
from analyze.measure.formulas import Estimate
from analyze.measure.table import Number
from analyze.page.questions import TableView, add_sounds, shown_run
from analyze.page.words import Alert, Tile, Verdict

HERE = Path(__file__).parent
MAX_EXAMPLES = 60
UNIT = "\u00a0%"  # with a space that does not break


@dataclass(frozen=True)
class PointSet:
    """Points that several pictures share: `kind` "audio" or "text", and for each point its
    utterance (P,), its time in hundredths of a second or its place in the transcript (P,), and
    the token it is or reads as (P,)."""

    kind: str
    utterance: np.ndarray
    time: np.ndarray
    token: np.ndarray


class Told(TypedDict):
    """What the report tells of one utterance. hypothesis: None where it was not decoded, and errors,
    words and wer then 0. in_pictures: its points are drawn."""

    id: str
    speaker: str
    sex: str
    split: str
    text: str
    seconds: float
    ce: float
    ce_shuffled: float | None
    hypothesis: str | None
    errors: int
    words: int
    wer: float
    in_pictures: bool


class ShownExample(Told):
    """An utterance in the page's table of transcripts. diff: as `difference` gives it."""

    reference: str
    diff: list[tuple[str, str]]


class Mark(TypedDict):
    """One value in a row's small picture, in its pixels."""

    kind: str
    x: float
    low: float
    high: float
    y: int


class Strip(TypedDict):
    """A row's small picture. zero: where nought lies; None where nothing is drawn."""

    marks: list[Mark]
    zero: float | None


class ShownRun(TypedDict):
    """What the template is told of a run."""

    name: str
    verdict: Verdict
    alerts: list[Alert]
    tiles: list[Tile]
    numbers: list[Number]
    by_key: dict[str, Number]
    strips: dict[str, Strip]
    examples: list[ShownExample]
    facts: list[tuple[str, str]]


class ShownFigure(TypedDict):
    """What the template is told of a picture. scope: goes before the ids in its SVG."""

    key: str
    scope: str
    index: int
    run: str
    title: str
    caption: str
    alt: str
    table: Table
    svg: str


class EstimateJson(TypedDict):
    """A value and its interval in report.json."""

    value: float
    low: float
    high: float


class NumberJson(TypedDict):
    """A row of the table in report.json."""

    name: str
    n: int
    chance: float | None
    trained: EstimateJson | None
    untrained: EstimateJson | None
    shuffled: EstimateJson | None


@dataclass(frozen=True)
class RunView:
    """Everything the page says of one run.

    tokens: the text of every token id. vectors: the rows (P, C) behind the point sets "text",
    "before" and "after", for those who want to look at them elsewhere.
    """

    name: str
    verdict: Verdict
    alerts: list[Alert]
    tiles: list[Tile]
    numbers: list[Number]
    figures: list[Figure]
    utterances: list[Told]
    facts: list[tuple[str, str]]
    sets: dict[str, PointSet]
    tokens: Sequence[str]
    vectors: dict[str, np.ndarray]
    tables: list[TableView] = field(default_factory=list)

    @property
    def pictures(self) -> list[Figure]:
        """All of the page's, those of the tables too."""
        return [*self.figures, *(table.figure for table in self.tables)]


def to_html(views: Sequence[RunView]) -> str:
    """The whole page. Equal views give equal bytes."""
    style, script = ((HERE / f"report.{kind}").read_text() for kind in ("css", "js"))
    env = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.filters.update(shown=shown, interval=interval, bare=bare, figure=plain)
    runs = [_run(view) for view in views]
    every = [u for view in views for u in view.utterances]
    html = env.get_template("template.html").render(
        runs=runs,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_data(views),
        figure_rows=_figure_rows(views),
        speakers=sorted({u["speaker"] for u in every}),
        words=sorted({word for u in every for word in u["text"].split()})[:400],
        examples_left_out=max(0, max(len(v.utterances) for v in views) - MAX_EXAMPLES),
        asked=[shown_run(v.name, v.tables, i, len(views)) for i, v in enumerate(views) if v.tables],
    )
    return add_sounds(html, [view.tables for view in views])


def to_json(views: Sequence[RunView]) -> str:
    """`report.json`: the page's words, numbers, tables and transcripts. NaN becomes null."""
    document = {
        "schema": 1,
        "runs": [
            {
                "name": view.name,
                "verdict": {
                    "level": view.verdict.level,
                    "headline": view.verdict.headline,
                    "sentences": view.verdict.sentences,
                },
                "alerts": [{"kind": a.kind, "text": a.text} for a in view.alerts],
                "numbers": {n.key: _number(n) for n in view.numbers},
                "figures": {
                    f.key: {"title": f.title, "head": f.table.head, "rows": f.table.rows}
                    for f in view.pictures
                },
                "tasks": {table.name: table.figures for table in view.tables},
                "utterances": view.utterances,
                "provenance": dict(view.facts),
            }
            for view in views
        ],
    }
    return json.dumps(_without_nan(document), indent=1, allow_nan=False) + "\n"


def shown(value: float, number: Number) -> str:
    """A number as its row writes it."""
    if not math.isfinite(value):
        return ""
    if number.percent:
        return f"{100 * value:.1f}{UNIT}"
    text = f"{value:.2f}" if abs(value) >= 0.095 else f"{value:.3f}"
    return text.replace("-", "\u2212")


def interval(e: Estimate, number: Number) -> str:
    """Both ends, the unit once."""
    return f"{shown(e.low, number).removesuffix(UNIT)} to {shown(e.high, number)}"


def bare(value: float | None) -> str:
    """A number for sorting; empty where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def plain(value: float) -> str:
    """A number in a figure's table."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if math.isfinite(value) else ""


def _run(view: RunView) -> ShownRun:
    return {
        "name": view.name,
        "verdict": view.verdict,
        "alerts": view.alerts,
        "tiles": view.tiles,
        "numbers": view.numbers,
        "by_key": {n.key: n for n in view.numbers},
        "strips": {n.key: _strip(n) for n in view.numbers},
        "examples": _examples(view.utterances),
        "facts": view.facts,
    }


def _examples(utterances: Sequence[Told]) -> list[ShownExample]:
    """Decoded utterances with the words marked, worst first."""
    heard = [(u, u["hypothesis"]) for u in utterances if u["hypothesis"] is not None]
    heard.sort(key=lambda pair: (-pair[0]["wer"], pair[0]["id"]))
    kept = [heard[i] for i in _evenly(len(heard), MAX_EXAMPLES)]
    return [
        {**u, "reference": u["text"], "diff": difference(u["text"], hypothesis)}
        for u, hypothesis in kept
    ]


def difference(said: str, heard: str) -> list[tuple[str, str]]:
    """Runs of words: "same", "wrong" (heard, not said) or "missed" (said, not heard)."""
    a, b = said.split(), heard.split()
    parts = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("same", " ".join(b[k:m])))
        else:
            parts += [("missed", " ".join(a[i:j]))] if j > i else []
            parts += [("wrong", " ".join(b[k:m]))] if m > k else []
    return parts


def _strip(number: Number, width: float = 152, left: float = 4) -> Strip:
    """The row's small picture: where trained and controls lie, on the row's own scale."""
    named = [
        ("trained", number.trained), ("untrained", number.untrained), ("shuffled", number.shuffled),
    ]  # fmt: skip
    known = [(kind, e) for kind, e in named if e is not None and e.defined]
    if not known:
        return {"marks": [], "zero": None}
    low, high = min(0.0, *(e.low for _, e in known)), max(e.high for _, e in known)
    if number.percent:
        high = max(high, 1.0)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(left + width * (value - low) / span, 1)

    marks: list[Mark] = [
        {"kind": kind, "x": at(e.value), "low": at(e.low), "high": at(e.high), "y": 8 + 12 * i}
        for i, (kind, e) in enumerate(known)
    ]
    return {"marks": marks, "zero": at(0.0)}


def _figure_rows(views: Sequence[RunView]) -> list[list[ShownFigure]]:
    """The same picture of each run side by side, in the order of the first run's pictures."""
    keys = dict.fromkeys(figure.key for view in views for figure in view.figures)
    rows = []
    for key in keys:
        row = list[ShownFigure]()
        for index, view in enumerate(views):
            scope = f"r{index}-" if len(views) > 1 else ""
            row += [
                {
                    "key": key, "scope": scope, "index": index, "run": view.name, "title": f.title,
                    "caption": f.caption, "alt": f.alt, "table": f.table, "svg": f.svg(scope),
                }
                for f in view.figures if f.key == key
            ]  # fmt: skip
        rows.append(row)
    return rows


def _data(views: Sequence[RunView]) -> str:
    """The script's data block: JSON without `<`, so that no transcript can close the element."""
    runs = [
        {
            "utterances": [{k: u[k] for k in ("id", "speaker", "text")} for u in view.utterances],
            "tokens": _used(view)[0],
            "sets": {
                name: {
                    "kind": s.kind,
                    "utterance": pack(s.utterance),
                    "time": pack(s.time),
                    "token": pack(token),
                }
                for (name, s), token in zip(view.sets.items(), _used(view)[1], strict=True)
            },
            "panels": {
                f.key: [
                    {"points": p.points, "colour": p.colour, "xy": pack(10 * p.xy.ravel())}
                    for p in f.panels
                ]
                for f in view.figures
                if f.panels
            },
        }
        for view in views
    ]
    return json.dumps({"runs": runs}, separators=(",", ":")).replace("<", "\\u003c")


def _used(view: RunView) -> tuple[list[str], list[np.ndarray]]:
    """The token texts that occur, and each set's tokens as indices into them."""
    ids = np.unique(np.concatenate([s.token for s in view.sets.values()]))
    return [view.tokens[i] for i in ids], [
        np.searchsorted(ids, s.token) for s in view.sets.values()
    ]


def _hash(text: str) -> str:
    """A source for the page's own content policy: nothing but these bytes may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _number(number: Number) -> NumberJson:
    return {
        "name": number.name,
        "n": number.n,
        "chance": number.chance,
        "trained": _estimate(number.trained),
        "untrained": _estimate(number.untrained),
        "shuffled": _estimate(number.shuffled),
    }


def _estimate(e: Estimate | None) -> EstimateJson | None:
    return None if e is None else {"value": e.value, "low": e.low, "high": e.high}


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _evenly(n: int, limit: int) -> list[int]:
    return (
        list(range(n)) if n <= limit else [round(i * (n - 1) / (limit - 1)) for i in range(limit)]
    )
