"""What a run tells the world: progress, metrics.jsonl, wandb, curves.svg.

Must not know how a step is made.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omni import runs
from omni.errors import OmniError, printable
from omni.formats.files import atomic
from omni.tracking import WandbPage, start_wandb


class Tracker:
    """One run's log. On ranks other than 0 make it with `path` None: it then does nothing."""

    def __init__(
        self, path: Path | None, config: Mapping[str, Any], wandb_mode: str, steps: int
    ) -> None:
        self.path, self.steps = path, steps
        self.tty = sys.stderr.isatty()
        self.started = self.printed = time.monotonic()
        self.first_step: int | None = None
        self._wandb = None if path is None else self._start_wandb(path, config, wandb_mode)

    def _start_wandb(self, path: Path, config: Mapping[str, Any], mode: str) -> WandbPage | None:
        try:
            return start_wandb(path, config, mode)
        except OmniError as error:  # metrics.jsonl has every figure: no reason not to train
            self.say(f"{error}; going on without it")
            return None

    def log(self, step: int, **figures: Any) -> None:
        """Add one line of metrics, here and at wandb. Nested dicts get names like `eval/x`."""
        if self.path is None:
            return
        runs.append_metrics(self.path, {"step": step, **figures})
        if self._wandb is not None:
            self._wandb.log(_flat(figures), step=step)

    def progress(self, step: int, figures: Mapping[str, float]) -> None:
        """A line that rewrites itself on a terminal; elsewhere a plain one every ten seconds."""
        if self.path is None:
            return
        now = time.monotonic()
        if self.first_step is None:
            self.first_step, self.started = step - 1, now
        if now - self.printed < (0.2 if self.tty else 10) and step < self.steps:
            return
        self.printed = now
        rate = (step - self.first_step) / max(now - self.started, 1e-9)
        left = (self.steps - step) / rate
        text = (
            f"step {step}/{self.steps}  loss {figures['loss']:.3f}  "
            f"acc {figures['token_accuracy']:.1%}  {figures['tokens_per_s']:,.0f} tokens/s  "
            f"{figures['soft_per_s']:,.0f} soft/s  wait {figures['data_wait']:.1%}  "
            f"{figures['memory_gb']:.1f} GB  {left:,.0f} s left"
        )
        print(
            f"\r{text}\033[K" if self.tty else text, end="" if self.tty else "\n", file=sys.stderr
        )

    def say(self, text: str) -> None:
        """Lines of their own, on standard error."""
        if self.path is not None:
            # Ids and names of splits in it are a stranger's.
            lines = "\n".join(printable(line) for line in text.split("\n"))
            print(f"\r\033[K{lines}" if self.tty else lines, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Draw the curves and end the wandb run."""
        if self.path is None:
            return
        draw_curves(runs.load_run(self.path).metrics(), self.path / "curves.svg")
        if self._wandb is not None:
            self._wandb.finish()


def draw_curves(metrics: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Loss and CE, token accuracy, and WER against steps, as an SVG of reproducible bytes."""
    import matplotlib as mpl  # half a second: only when a run ends
    from matplotlib.figure import Figure

    train = [m for m in metrics if "loss" in m]
    evals = [m for m in metrics if "eval" in m]
    splits = sorted({name for m in evals for name in m["eval"]})
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("nats a token", "loss", ("ce", "ce_shuffled")),
        ("token accuracy", "token_accuracy", ("token_accuracy",)),
        ("WER", None, ("wer",)),
    )
    for ax, (title, own, names) in zip(axes, panels, strict=True):
        if own is not None:
            ax.plot([m["step"] for m in train], [m[own] for m in train], lw=0.8, label="training")
        for i, split in enumerate(splits):
            for name, style in zip(names, ("o-", "x--"), strict=False):
                points = [
                    (m["step"], m["eval"][split][name])
                    for m in evals
                    if name in m["eval"].get(split, {})
                ]
                label = f"{split}, other audio" if name == "ce_shuffled" else split
                if points:
                    ax.plot(*zip(*points, strict=True), style, ms=4, color=f"C{i + 1}", label=label)
        ax.set(xlabel="step", title=title)
        if ax.lines:
            ax.legend(fontsize=7)
    with (
        mpl.rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none"}),
        atomic(file) as out,
    ):
        figure.savefig(out, format="svg", metadata={"Date": None})


def _flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers alone, by a path-like name."""
    out: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            out[f"{prefix}{key}"] = value
    return out
