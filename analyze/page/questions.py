"""What the page says of a table's questions: rows of its table, sentences, questions to listen to.

Must not compute a number, nor know where the figures come from.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import TypedDict

from analyze.draw.svg import Figure, Table, percent
from omni.evaluation.choice_figures import (
    CONTROL_WORDS,
    SHARE_WORDS,
    GroupFigures,
    QuestionFigures,
    groups_of,
)
from omni.evaluation.table import TableFigures
from omni.evaluation.verdict import shows_hearing
from omni.formats.tasks import LETTERS

MAX_BYTES = 6_000_000  # of the page: beyond it no more sound is added
_MARK = "<!--sound of {}-->"  # no transcript can hold it: theirs are escaped


@dataclass(frozen=True)
class Listened:
    """A question to show. said: the transcript; sound: FLAC, empty where there is none."""

    question: QuestionFigures
    said: str
    sound: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class TableView:
    """Everything the page says of one table."""

    name: str
    figures: TableFigures
    figure: Figure
    listened: list[Listened]


class Verdict(TypedDict):
    """Of a group of questions. shown: whether they show that the LM hears."""

    need: str
    text: str
    shown: bool


class ShownQuestion(TypedDict):
    """A question in the page. options: letter, text, whether it is the key; sound: a mark that
    `add_sounds` replaces, or empty."""

    id: str
    kind: str
    prompt: str
    options: list[tuple[str, str, bool]]
    said: str
    right: str
    deaf: str
    sound: str


class ShownTable(TypedDict):
    """A table in the page."""

    name: str
    verdicts: list[Verdict]
    alerts: list[str]
    table: Table
    kinds: Table
    sentences: list[str]
    curve: Table | None
    questions: list[ShownQuestion]
    figure: Figure
    scope: str
    svg: str


class ShownAsked(TypedDict):
    """A run's tables in the page."""

    name: str
    tables: list[ShownTable]


def shown_run(name: str, tables: Sequence[TableView], index: int, of: int) -> ShownAsked:
    """What was asked of a run, the `index`-th of `of`."""
    scope = f"r{index}-" if of > 1 else ""
    shown = [_shown_table(table, f"{index}-{k}-", scope) for k, table in enumerate(tables)]
    return {"name": name, "tables": shown}


def _shown_table(view: TableView, prefix: str, scope: str) -> ShownTable:
    """A table as the template takes it. prefix: of the marks of its sounds; scope: before ids."""
    figures, groups = view.figures, groups_of(view.figures)
    return {
        "name": view.name,
        "verdicts": [
            {"need": need, "text": group["verdict"], "shown": shows_hearing(group)}
            for need, group in groups.items()
        ],
        "alerts": figures["alerts"],
        "table": Table(["", *groups], _rows(groups)),
        "kinds": _kinds(figures),
        "sentences": _sentences(figures),
        "curve": _curve(figures),
        "questions": [
            _question(one, _MARK.format(f"{prefix}{i}")) for i, one in enumerate(view.listened)
        ],
        "figure": view.figure,
        "scope": scope,
        "svg": view.figure.svg(scope),
    }


def add_sounds(html: str, runs: Sequence[Sequence[TableView]], limit: int = MAX_BYTES) -> str:
    """The page with its sounds in, as far as it stays below `limit` bytes.

    Args:
        runs: tables of each run, as they were shown.
    """
    size = len(html.encode())
    marked = {
        _MARK.format(f"{r}-{k}-{i}"): (one, f"Utterance {i + 1} of {table.name}")
        for r, tables in enumerate(runs)
        for k, table in enumerate(tables)
        for i, one in enumerate(table.listened)
        if one.sound
    }
    for mark, (one, label) in marked.items():
        data = base64.b64encode(one.sound).decode()
        player = f'<audio controls preload="none" aria-label="{label}" src="data:audio/flac;base64,{data}"></audio>'
        if size + len(player) > limit:
            player = '<span class="muted">left out, lest the page grow too large</span>'
        size += len(player)
        html = html.replace(mark, player)
    return html


def _rows(groups: Mapping[str, GroupFigures]) -> list[list[str | float | int]]:
    """A row a figure, a column a group; what no group has is left out."""
    rows: list[list[str | float | int]] = [["questions", *(g["n"] for g in groups.values())]]
    for key, words in SHARE_WORDS.items():
        cells = [_percent(group.get(key)) for group in groups.values()]
        if any(cells) and not (key == "unanswered" and set(cells) == {_percent(0.0)}):
            rows.append([words, *cells])
        if key == "accuracy":
            ends = [group["interval"] for group in groups.values()]
            rows.append(["95 % interval", *(f"{_percent(a)} to {_percent(b)}" for a, b in ends)])
    for key, words in CONTROL_WORDS.items():
        cells = [_control(group, key) for group in groups.values()]
        if any(cells):
            rows.append([words, *cells])
    return rows


def _control(group: GroupFigures, key: str) -> str:
    if key not in group["controls"]:
        return ""
    control = group["controls"][key]
    p = control["mcnemar_p"]
    return f"{_percent(control['accuracy'])} (p {'below 0.001' if p < 0.001 else f'{p:.3f}'})"


def _kinds(figures: TableFigures) -> Table:
    """Kinds, worst first."""
    ordered = sorted(figures["kinds"].items(), key=lambda pair: (pair[1]["accuracy"], pair[0]))
    rows: list[list[str | float | int]] = [
        [kind, g["n"], _percent(g["accuracy"]), _percent(g["strict"]), _best(g)]
        for kind, g in ordered
    ]
    return Table(["kind", "questions", "right", "in all four rotations", "controls at most"], rows)


def _best(group: GroupFigures) -> str:
    return _percent(max((c["accuracy"] for c in group["controls"].values()), default=None))


def _sentences(figures: TableFigures) -> list[str]:
    found = []
    if obeyed := figures.get("obedience"):
        low, high = obeyed["interval"]
        found.append(
            f"It transcribes instead of answering in {percent(obeyed['transcribes'])} of "
            f"{obeyed['n']:,} answers (95 % interval {percent(low)} to {percent(high)})."
        )
        if "open_right" in obeyed:
            found.append(
                f"Of {obeyed['open_n']:,} open questions it answers {percent(obeyed['open_right'])} "
                "word for word as wanted."
            )
    if worded := figures.get("wordings"):
        found.append(
            f"In each kind's best wording {percent(worded['best'])} are right, in its worst "
            f"{percent(worded['worst'])}, of the same {worded['n']:,} questions."
        )
    if kept := figures.get("text"):
        same = "the same to the bit" if kept["identical"] else "not the same"
        found.append(
            f"{kept['n']:,} rows of text: {kept['bits_per_byte']:.4f} bits per byte with adapters, "
            f"{kept['bits_per_byte_bare']:.4f} without; every score is {same}."
        )
    return found


def _curve(figures: TableFigures) -> Table | None:
    points = figures.get("curve")
    if not points:
        return None
    rows: list[list[str | float | int]] = [
        [f"{p['scale']:g}", _percent(p["accuracy"]), _percent(p["strict"]),
         _percent(p.get("transcribes")), _percent(p.get("wer"))]
        for p in points
    ]  # fmt: skip
    return Table(["adapters at", "right", "in all four rotations", "transcribes", "WER"], rows)


def _question(one: Listened, mark: str) -> ShownQuestion:
    q = one.question
    answered = [f"{said or 'none'} {'right' if right else 'wrong'}" for said, right in zip(q.get("said", [""] * 4), q["right"], strict=True)]  # fmt: skip
    deaf = [f"{CONTROL_WORDS[c]} {sum(right)}" for c, right in q["controls"].items()]
    return {
        "id": q["id"],
        "kind": q["kind"],
        "prompt": q["prompt"],
        "options": [
            (letter, option, option == q["answer"])
            for letter, option in zip(LETTERS, q["options"], strict=True)
        ],
        "said": one.said,
        "right": ", ".join(answered),
        "deaf": ", ".join(deaf),
        "sound": mark if one.sound else "",
    }


def _percent(share: object) -> str:
    """One decimal: a tenth of a question of two hundred still shows."""
    return f"{100 * share:.1f}\u00a0%" if isinstance(share, int | float) else ""
