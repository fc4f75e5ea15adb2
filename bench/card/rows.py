"""What the measurement of a card prints: rows, and a clock that knows devices.

Must not know what is measured.
"""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from omni.formats.files import write_whole


@dataclass(frozen=True)
class Row:
    """One figure, or why there is none: `value` is then None and `note` the reason."""

    part: str
    what: str
    value: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Budget:
    """Wall time that a part may still take."""

    until: float  # of time.monotonic()

    @classmethod
    def of(cls, seconds: float) -> "Budget":
        """From now on."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds; negative when it is used up."""
        return self.until - time.monotonic()


class OutOfTimeError(Exception):
    """A part's time was up. No TimeoutError: that is an OSError, which says that a disk is at fault."""


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """What happens inside is broken off when its time is up, and again every ten seconds: who takes
    that for a failure of his own goes on, and not for long.

    Raises:
        OutOfTimeError: its time was up.
    """

    def stop(*_: object) -> None:
        raise OutOfTimeError(f"{seconds:.0f} s were not enough")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01), 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seconds(
    job: Callable[[], object], device: torch.device, budget: Budget, most: int = 20
) -> float:
    """Median wall time of `job`, device included, after one run to warm up.

    At least one counted run, at most `most`, none begun after half of what the budget has left.
    """
    job()
    _wait(device)
    stop, taken = budget.left / 2, list[float]()
    while not taken or (len(taken) < most and sum(taken) < stop):
        began = time.perf_counter()
        job()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write_tables(folder: Path, about: dict[str, str], rows: Sequence[Row]) -> tuple[Path, Path]:
    """`card.json` and `card.md` in `folder`: the same rows twice."""
    document = {"about": about, "rows": [asdict(row) for row in rows]}
    write_whole(folder / "card.json", (json.dumps(document, indent=1) + "\n").encode())
    write_whole(folder / "card.md", as_markdown(about, rows).encode())
    return folder / "card.json", folder / "card.md"


def as_markdown(about: dict[str, str], rows: Sequence[Row]) -> str:
    """A line of what it ran on, then a table a part."""
    lines = ["; ".join(f"{key}: {value}" for key, value in about.items()), ""]
    part = None
    for row in rows:
        if row.part != part:
            part = row.part
            lines += ["", f"## {part}", "", "| what | figure | note |", "|---|---|---|"]
        value = "none" if row.value is None else f"{row.value:,.4g} {row.unit}"
        lines.append(f"| {row.what} | {value} | {' '.join(row.note.split()).replace('|', '/')} |")
    return "\n".join(lines) + "\n"
