"""From run folders to files: `report.html` and `report.json` beside it.

The one entry of this package for the commands. Must not know how anything is measured or drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.examine import Request, examine
from analyze.measure.sample import Progress, silent
from analyze.page.html import RunView, to_html, to_json
from omni.formats.files import atomic
from omni.runs import Run


@dataclass(frozen=True)
class Report:
    """What was written, and what it says."""

    html: Path
    json: Path
    views: list[RunView]


def make_report(
    out: str | Path,
    runs: Sequence[Run],
    request: Request,
    progress: Progress = silent,
    started: Callable[[Run], None] = lambda run: None,
) -> Report:
    """Measure each run and write the page and its numbers.

    Args:
        out: the page; the JSON goes beside it under the same name with suffix `.json`.
        runs: one or several; several stand side by side.
        started: called before each run is measured.

    Raises:
        OmniError: a run, its shards or its LM can't be used, or the files can't be written.
    """
    html = Path(out)
    views = []
    for run in runs:
        started(run)
        views.append(examine(run, request, progress))
    html.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((html, to_html(views)), (html.with_suffix(".json"), to_json(views))):
        with atomic(path) as file:
            file.write(text.encode())
    return Report(html, html.with_suffix(".json"), views)
