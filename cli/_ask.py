"""What `omni-eval --tasks` does: a table's questions put to a run, and what comes of them printed."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cli._loaded import Loaded

if TYPE_CHECKING:
    from omni.evaluation.choice_figures import GroupFigures
    from omni.evaluation.table import TableFigures
    from omni.formats.asked import Table
    from omni.formats.shards import Sample
    from omni.formats.splits import SplitIndex
    from omni.runs import Run
    from omni.whisper.decoder import WhisperDecoder

LEFT, COLUMN = 36, 17


def open_tables(names: Sequence[str], run: "Run") -> list["Table"]:
    """The tables, refused before anything is loaded.

    Raises:
        OmniError: no such table, one that the run was trained on, two of one name.
    """
    from omni.errors import OmniError
    from omni.formats.asked import open_table

    tables = [open_table(name, run.provenance) for name in names]
    for i, table in enumerate(tables):
        if table.name in {other.name for other in tables[:i]}:
            raise OmniError("two tables of one name", table.name, "judge by one after the other")
    return tables


def read_asked(
    table: "Table", splits: Sequence["SplitIndex"], run: "Run", ids: Sequence[str]
) -> dict[str, "Sample"]:
    """The utterances that a table asks about.

    Raises:
        OmniError: one is in no shard; shards of other features than the run's.
    """
    from omni.formats.asked import read_utterances

    named = {task.split for task in table.tasks.rows}
    here = [split for split in splits if split.split in named] or list(splits)
    for split in here:
        run.check_features(split.fingerprint, str(split.folder))
    return read_utterances(here, ids)


def ask(
    table: "Table",
    loaded: Loaded,
    splits: Sequence["SplitIndex"],
    decoder: "WhisperDecoder | None",
    args: argparse.Namespace,
) -> "TableFigures":
    """Put a table's questions.

    Args:
        decoder: Whisper's, where the cascade is wanted.

    Raises:
        OmniError: a table without four-option questions, or whose utterances are not there.
    """
    from omni.encoder import frames_per_second
    from omni.evaluation.table import Wanted, judge_table
    from tasks.census import census

    run, tasks = loaded.run, table.tasks
    samples = read_asked(table, splits, run, [task.id for task in tasks.rows if task.id])
    adapters = run.config.get("lora")
    wanted = Wanted(
        args.batch_size,
        args.limit or None,
        args.decode_limit,
        transcribe=decoder.transcribe if decoder else None,
        curve=args.curve,
        text=args.retention and loaded.lm.lora is not None,
        everywhere=adapters is not None and adapters["everywhere"],
        language=args.language or run.language,
        rate=frames_per_second(loaded.features),
    )
    figures = judge_table(
        loaded.lm, loaded.tok, loaded.projector, tasks, samples, loaded.template, wanted
    )
    figures["alerts"] = list(dict.fromkeys([*figures["alerts"], *census(tasks).alerts]))
    return figures


def print_table(name: str, figures: "TableFigures") -> None:
    """The table of figures, what they mean, and what makes them worth less."""
    from omni.errors import printable
    from omni.evaluation.choice_figures import CONTROL_WORDS, SHARE_WORDS, groups_of

    groups = groups_of(figures)
    print(f"\n{printable(name)}")
    _line("", list(groups))
    _line("questions", [f"{g['n']:,}" for g in groups.values()])
    for key, words in SHARE_WORDS.items():
        if key == "unanswered" and not any(g["unanswered"] for g in groups.values()):
            continue
        cells = [_share(g, key) for g in groups.values()]
        if any(cells):
            _line(words, cells)
        if key == "accuracy":
            ends = [g["interval"] for g in groups.values()]
            _line("  95 % interval", [f"{low:.1%} to {high:.1%}" for low, high in ends])
    for key, words in CONTROL_WORDS.items():
        cells = [_control(g, key) for g in groups.values()]
        if any(cells):
            _line(words, cells)
    if len(figures["kinds"]) > 1:
        for kind, group in figures["kinds"].items():
            best = max((c["accuracy"] for c in group["controls"].values()), default=0.0)
            shown = f"{group['accuracy']:7.1%} of {group['n']}, controls at most {best:.1%}"
            print(f"  {printable(kind):<{LEFT}}{shown}")
    _print_beside(figures)
    for need, group in groups.items():
        print(f"  {need}: {group['verdict']}")
    for alert in figures["alerts"]:
        print(printable(f"  alert: {alert}"))


def _print_beside(figures: "TableFigures") -> None:
    """Whether it obeys, whether a wording matters, what was kept, and the curve."""
    from omni.errors import printable

    if obeyed := figures.get("obedience"):
        low, high = obeyed["interval"]
        said = f"{obeyed['transcribes']:.1%} ({low:.1%} to {high:.1%}) of {obeyed['n']:,} answers"
        print(f"  transcribes instead: {said}")
        for key, words in (
            ("options_letter", "answered by a letter"),
            ("open_right", "open, right"),
        ):
            if key in obeyed:
                print(f"    {words}: {obeyed[key]:.1%}")  # type: ignore[literal-required]
        for one in obeyed["examples"][:3]:
            print(printable(f"    {one['prompt']!r} -> {one['answer']!r}"))
    if worded := figures.get("wordings"):
        ends = f"best {worded['best']:.1%}, worst {worded['worst']:.1%}"
        print(
            f"  wordings: {ends}, {100 * worded['spread']:.1f} points apart ({worded['n']:,} questions)"
        )
    if kept := figures.get("text"):
        same = "the same to the bit" if kept["identical"] else "not the same"
        bits = f"{kept['bits_per_byte']:.4f} bits per byte, {kept['bits_per_byte_bare']:.4f} without adapters"
        print(f"  {kept['n']:,} rows of text: {bits}; every score is {same}")
        if "accuracy" in kept:
            both = f"{kept['accuracy']:.1%} right, {kept['accuracy_bare']:.1%} without adapters"
            print(f"    {kept['questions']:,} with four options: {both}")
    if points := figures.get("curve"):
        print("  adapters at    right   strict  transcribes      WER")
        for point in points:
            rest = f"{_share(point, 'transcribes'):>13}{_share(point, 'wer'):>9}"
            print(f"    {point['scale']:<9g}{point['accuracy']:>9.1%}{point['strict']:>9.1%}{rest}")


def _line(words: str, cells: Sequence[str]) -> None:
    print(f"  {words:<{LEFT}}{''.join(f'{cell:>{COLUMN}}' for cell in cells)}".rstrip())


def _share(figures: Mapping[str, object], key: str) -> str:
    value = figures.get(key)
    return f"{value:.1%}" if isinstance(value, float) else ""


def _control(group: "GroupFigures", name: str) -> str:
    """A control's share, and McNemar's p of the right audio against it."""
    if name not in group["controls"]:
        return ""
    found = group["controls"][name]
    p = found["mcnemar_p"]
    return (
        f"{found['accuracy']:.1%} (p {'<.001' if p < 0.001 else f'{p:.3f}'[1:] if p < 1 else '1'})"
    )
