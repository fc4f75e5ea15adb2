"""The report elsewhere: PNG files for a paper, TSV for TensorBoard's projector, the run's wandb page.

Takes what `examine` made; must not measure or draw anything anew.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyze.page.html import RunView
from omni.evaluation.choice_figures import groups_of
from omni.formats.files import atomic, write_whole
from omni.runs import Run
from omni.tracking import start_wandb

PROJECTOR_CONFIG = """\
embeddings {
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def write_png(folder: str | Path, views: Sequence[RunView]) -> list[Path]:
    """Each picture as `<run>-<picture>.png` (`<picture>.png` for a single run), 200 dots an inch."""
    root = Path(folder)
    written = []
    for view in views:
        for figure in view.pictures:
            name = figure.key if len(views) == 1 else f"{view.name}-{figure.key}"
            path = root / f"{name}.png"
            write_whole(path, figure.png())
            written.append(path)
    return written


def write_projector(folder: str | Path, views: Sequence[RunView]) -> list[Path]:
    """The points of the joint PCA at full width, for TensorBoard's projector or its web page.

    `vectors.tsv`: one row a point, the LM's normed input row. `metadata.tsv`: run, kind ("text",
    "soft token before", "soft token after"), token, utterance, speaker, place in the transcript or
    seconds. `projector_config.pbtxt`: what TensorBoard looks for.
    """
    root = Path(folder)
    kinds = {"text": "text", "before": "soft token before", "after": "soft token after"}
    heads = ("run", "kind", "token", "utterance", "speaker", "at")
    lines, vectors = ["\t".join(heads)], []
    for view in views:
        for name, kind in kinds.items():
            points = view.sets[name]
            vectors.append(view.vectors[name])
            for u, t, token in zip(points.utterance, points.time, points.token, strict=True):
                said = view.utterances[u]
                at = str(int(t)) if points.kind == "text" else f"{t / 100:.2f}"
                cells = (view.name, kind, view.tokens[token], said["id"], said["speaker"], at)
                lines.append("\t".join(_cell(cell) for cell in cells))
    paths = [root / name for name in ("vectors.tsv", "metadata.tsv", "projector_config.pbtxt")]
    with atomic(paths[0]) as out:
        np.savetxt(out, np.concatenate(vectors), fmt="%.5g", delimiter="\t")
    write_whole(paths[1], ("\n".join(lines) + "\n").encode(errors="backslashreplace"))
    write_whole(paths[2], PROJECTOR_CONFIG.encode())
    return paths


def log_wandb(views: Sequence[RunView], runs: Sequence[Run], asked: str) -> None:
    """The numbers and pictures of each run to its own wandb page, the trainer's.

    Offline, wandb keeps everything in the run folder until `wandb sync --append`.

    Args:
        asked: "auto", "online", "offline" or "disabled".

    Raises:
        OmniError: wandb could not start.
    """
    for view, run in zip(views, runs, strict=True):
        page = start_wandb(run.path, {}, asked)
        if page is None:
            return
        import wandb  # seconds: only if it is used

        head = ["number", "trained", "low", "high", "untrained", "shuffled pairs", "chance"]
        rows = [
            [
                n.name, n.trained.value, n.trained.low, n.trained.high,
                n.untrained.value if n.untrained else None,
                n.shuffled.value if n.shuffled else None, n.chance,
            ]
            for n in view.numbers
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            columns: list[str | int] = [*head]
            logged: dict[str, Any] = {"report/numbers": wandb.Table(columns=columns, data=rows)}
            for figure in view.pictures:
                path = Path(scratch) / f"{figure.key}.png"
                path.write_bytes(figure.png())
                logged[f"report/{figure.key}"] = wandb.Image(str(path), caption=figure.title)
            page.log(logged)
            figures = {f"report/{n.key}": n.trained.value for n in view.numbers}
            for table in view.tables:
                for need, group in groups_of(table.figures).items():
                    figures[f"report/{table.name}/{need}/accuracy"] = group["accuracy"]
                    figures[f"report/{table.name}/{need}/strict"] = group["strict"]
            page.summarize({"report/verdict": view.verdict.headline, **figures})
            page.finish()


def _cell(text: str) -> str:
    """A TSV cell: whatever could end a cell or a line is written as an escape; never empty."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown or "(empty)"
