"""Drawing without a display: one style, SVG that follows the page's theme, points that can be hit.

Line art and text stay vector; points are rasterised, so 5,000 of them weigh 100 kB. The same
input gives the same bytes. Must not know what is drawn.
"""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from analyze.measure.formulas import Floats

# Okabe and Ito's colours, told apart by every common kind of colour blindness; each has a
# contrast of 3:1 or better against both page backgrounds. Shape says the same as colour.
AUDIO, TEXT, THIRD, FOURTH = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
MARKS = {AUDIO: "o", TEXT: "^", THIRD: "s", FOURTH: "D"}

# Stand-ins that the page replaces by its own theme's colours; a PNG keeps them as they are.
INK, MUTED, GRID = "#1b1c1d", "#6a6b6c", "#d8d9da"
_THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a token may hold a dollar sign
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
RASTER_DPI = 144


@dataclass(frozen=True)
class Table:
    """What a figure shows, as words and numbers."""

    head: list[str]
    rows: list[list[str | float | int]]


@dataclass
class Panel:
    """Points that the page can hit: `points` names their set, `xy` (P, 2) lies in the viewBox."""

    points: str
    colour: str
    xy: Floats


@dataclass
class Figure:
    """One picture of the report. `panels` is empty where nothing can be pointed at."""

    key: str
    title: str
    caption: str
    alt: str
    table: Table
    canvas: Canvas
    panels: list[Panel] = field(default_factory=list)

    def svg(self, scope: str = "") -> str:
        """Inline SVG in theme colours; ids carry `scope` and the key, so that none meet."""
        return themed_svg(self.canvas, f"{scope}{self.key}", self.title)

    def png(self) -> bytes:
        """For a paper: white ground, 200 dots an inch."""
        out = io.BytesIO()
        with mpl.rc_context(_STYLE):
            self.canvas.savefig(
                out, format="png", dpi=200, facecolor="white", metadata={"Software": None}
            )
        return out.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Everything is drawn inside this."""
    with mpl.rc_context(_STYLE):
        yield


def grid(
    n_rows: int,
    n_columns: int,
    width: float = 9.0,
    height: float = 4.0,
    left: float = 0.62,
    top: float = 0.36,
) -> tuple[Canvas, list[list[Axes]]]:
    """An empty figure of `n_rows` x `n_columns` axes; sizes and margins in inches.

    Margins are fixed rather than fitted: fitting measures text twice and costs a second.
    """
    canvas = Canvas(figsize=(width, height))
    axes = canvas.subplots(n_rows, n_columns, squeeze=False)
    canvas.subplots_adjust(
        left=left / width,
        right=1 - 0.15 / width,
        bottom=0.48 / height,
        top=1 - top / height,
        wspace=0.62 * n_columns / width,
        hspace=0.85 * n_rows / height,
    )
    return canvas, [list(row) for row in axes]


def scatter(ax: Axes, xy: Floats, colour: str, label: str, size: float = 9.0) -> None:
    """Rasterised points (P, 2); the shape goes with the colour.

    Text lies on top and larger: a token that is said a hundred times is still a single place.
    """
    alpha = float(np.clip(30 / np.sqrt(max(len(xy), 1)), 0.25, 0.8))
    if colour == TEXT:
        alpha, size = 0.9, 1.8 * size
    ax.scatter(
        xy[:, 0], xy[:, 1], s=size, c=colour, marker=MARKS[colour], alpha=alpha, linewidths=0,
        rasterized=True, label=f"{label} ({len(xy):,})", zorder=2.1 if colour == TEXT else 2,
    )  # fmt: skip


def legend(ax: Axes, outside: bool = False, **options: object) -> None:
    """A legend whose marks are solid, whatever the points' transparency.

    `outside`: at the figure's top right corner, where no point can lie beneath it.
    """
    chosen: dict[str, Any] = {"loc": "best", "fontsize": 8, "handletextpad": 0.4, **options}
    if outside:
        canvas = ax.get_figure(root=True)
        assert canvas is not None  # an axes is always in a figure
        chosen |= {"loc": "upper right", "ncols": 4, "borderaxespad": 0.1}
        found = canvas.legend(*ax.get_legend_handles_labels(), **chosen)
    else:
        found = ax.legend(**chosen)
    for handle in found.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
            handle.set_rasterized(False)


def percent(share: float) -> str:
    """A share in words: whole above ten, one decimal below, the unit never on a line of its own."""
    value = 100 * share
    return f"{value:.0f}\u00a0%" if value >= 9.95 or value == 0 else f"{value:.1f}\u00a0%"


def signed_colours(values: Floats, limit: float | None = None) -> Floats:
    """RGBA image (n, m, 4) of values: orange above 0, blue below, clear at 0, on any ground."""
    limit = limit or float(np.abs(values).max()) or 1.0
    share = np.clip(np.abs(values) / limit, 0, 1)
    image = np.empty((*values.shape, 4))
    image[..., :3] = np.where(
        values[..., None] >= 0, mpl.colors.to_rgb(AUDIO), mpl.colors.to_rgb(TEXT)
    )
    image[..., 3] = share
    return image


def in_view_box(ax: Axes, xy: Floats) -> Floats:
    """Data coordinates (P, 2) as points of the SVG's viewBox, y downwards."""
    canvas = ax.get_figure(root=True)
    assert canvas is not None  # an axes is always in a figure
    scale = 72 / canvas.dpi
    at = ax.transData.transform(xy) * scale
    return np.stack([at[:, 0], canvas.get_figheight() * 72 - at[:, 1]], 1)


def pack(values: Sequence[float] | Floats) -> str:
    """Numbers from 0 to 65,535 as base64 of little-endian uint16, for the page's script."""
    whole = np.clip(np.round(np.asarray(values, float)), 0, 65535).astype("<u2")
    return base64.b64encode(whole.tobytes()).decode()


def themed_svg(canvas: Canvas, scope: str, title: str) -> str:
    """Matplotlib's SVG made fit to stand in a page beside others.

    The XML head and the style element go (it would reach the whole page), ids get a scope,
    sizes go to the style sheet, stand-in colours become CSS variables.
    """
    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": scope}):
        canvas.savefig(out, format="svg", dpi=RASTER_DPI, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = text.replace(' version="1.1"', "", 1)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{scope}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{scope}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{scope}-\1)", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", text)
    for stand_in, variable in _THEMED.items():
        text = text.replace(stand_in, variable)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1).strip()
