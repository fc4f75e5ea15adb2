"""The pictures of where audio and text lie: principal components, words, layers.

Each function takes the evidence of one run and gives one `Figure`: drawing, caption, alt text
and the same content as a table. Must not know about pages, nor compute a number of the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from sklearn.decomposition import PCA

from analyze.draw.svg import (
    AUDIO,
    INK,
    MUTED,
    TEXT,
    Figure,
    Panel,
    Table,
    grid,
    in_view_box,
    legend,
    percent,
    scatter,
    style,
)
from analyze.measure.formulas import Floats, Ints, unit
from analyze.measure.position import fit_pca
from analyze.measure.sample import Audio, Text
from analyze.measure.table import Evidence

WORDS_SHOWN = 24


@dataclass(frozen=True)
class Picked:
    """Which points the pictures show: indices into the rows of audio and of text, equally many."""

    audio: Ints
    text: Ints


def pick(e: Evidence, n_points: int) -> Picked:
    """At most `n_points` points in all, half audio, half text, drawn by the report's seed."""
    rng = np.random.default_rng(e.seed)
    size = min(len(e.trained.rows), len(e.text.rows), n_points // 2)
    return Picked(
        np.sort(rng.choice(len(e.trained.rows), size, replace=False)),
        np.sort(rng.choice(len(e.text.rows), size, replace=False)),
    )


@dataclass(frozen=True)
class Cloud:
    """Points to draw: their set's name on the page, what they are, colour, rows (P, C)."""

    points: str
    label: str
    colour: str
    rows: Floats


def joint_pca(e: Evidence, picked: Picked) -> Figure:
    """Soft tokens and text embeddings before and after training, on one pair of axes."""
    return _before_after(
        e,
        picked,
        "joint",
        "Where audio and text lie",
        "One PCA of the LM's input rows, fitted to equal numbers of text tokens and soft tokens "
        "before and after training, so that both panels have the same axes. Two components show "
        "only the share of the variance printed on them: clouds that meet here may be apart in "
        "the rest, and clouds that are apart may still be heard. Read the table of numbers first.",
        centred=False,
    )


def centred_pca(e: Evidence, picked: Picked) -> Figure:
    """The same with each cloud's own centre taken off: shape without place."""
    return _before_after(
        e,
        picked,
        "centred",
        "The same, centres removed",
        "Each cloud is moved so that its mean is at the origin, then the PCA is fitted. What is "
        "left is shape: a constant offset between audio and text, which the LM can ignore, is gone.",
        centred=True,
    )


def text_pca(e: Evidence, picked: Picked) -> Figure:
    """Axes of the text alone, audio projected into them."""
    text = e.text.rows[picked.text]
    pca = fit_pca(text)
    clouds = [
        [
            Cloud("text", "text tokens", TEXT, text),
            Cloud(name, "soft tokens", AUDIO, audio.rows[picked.audio]),
        ]
        for name, audio in (("before", e.untrained), ("after", e.trained))
    ]
    shares = [_share_on_axes(pca, panel[1].rows) for panel in clouds]
    figure = _panels(
        "text-axes",
        "Audio seen along the text's own axes",
        "The PCA is fitted to the transcripts' token embeddings alone and audio is projected into "
        "it, so audio has no say in the axes. The two axes hold "
        f"{percent(share(pca, 0) + share(pca, 1))} of the text's variance, {percent(shares[0])} of the "
        f"audio's before training and {percent(shares[1])} after.",
        [("Before training", pca, clouds[0]), ("After training", pca, clouds[1])],
    )
    return figure


def value_pca(e: Evidence, picked: Picked) -> Figure | None:
    """Audio and text in the value rows, after training; None where there are none."""
    if e.trained.value is None or e.text.value is None:
        return None
    text, audio = e.text.value.rows[picked.text], e.trained.value.rows[picked.audio]
    panels = []
    for name, x, y in (
        ("As they are", text, audio),
        ("Centres removed", text - text.mean(0), audio - audio.mean(0)),
    ):
        clouds = [
            Cloud("text", "text tokens", TEXT, x),
            Cloud("after-values", "soft tokens", AUDIO, y),
        ]
        panels.append((name, fit_pca(np.concatenate([x, y])), clouds))
    return _panels(
        "values",
        "The second entrance: value rows",
        "nanochat looks tokens up twice: once for the input row, once for the values that its "
        "attention copies. The projector fills both. Here are the value rows of all layers side by "
        "side, after training; before it they are all zero. Pointing shows the token whose value "
        "rows are nearest.",
        panels,
        share_axes=False,
    )


def _before_after(
    e: Evidence, picked: Picked, key: str, title: str, caption: str, centred: bool
) -> Figure:
    text = e.text.rows[picked.text]
    before, after = (a.rows[picked.audio] for a in (e.untrained, e.trained))
    if centred:
        text, before, after = (x - x.mean(0) for x in (text, before, after))
    pca = fit_pca(np.concatenate([text, before, after]))
    of_text = Cloud("text", "text tokens", TEXT, text)
    return _panels(
        key,
        title,
        caption,
        [
            ("Before training", pca, [of_text, Cloud("before", "soft tokens", AUDIO, before)]),
            ("After training", pca, [of_text, Cloud("after", "soft tokens", AUDIO, after)]),
        ],
    )


def _panels(
    key: str,
    title: str,
    caption: str,
    panels: Sequence[tuple[str, PCA, list[Cloud]]],
    columns: int = 2,
    share_axes: bool = True,
) -> Figure:
    """Scatter panels of clouds; one row of the table for each cloud of each panel."""
    n_rows = -(-len(panels) // columns)
    rows: list[list[str | float | int]] = []
    hit: list[Panel] = []
    with style():
        small = columns > 2
        canvas, axes = grid(n_rows, columns, 9.0, (2.4 if small else 4.0) * n_rows + 0.2, top=0.6)
        flat = [ax for line in axes for ax in line]
        drawn = []
        for ax, (name, pca, clouds) in zip(flat, panels, strict=False):
            ax.set_title(name)
            placed = [(c, pca.transform(c.rows.astype(np.float64))[:, :2]) for c in clouds]
            for cloud, xy in placed:
                scatter(ax, xy, cloud.colour, cloud.label, 5 if small else 9)
                centre, spread = xy.mean(0), float(np.sqrt(((xy - xy.mean(0)) ** 2).sum(1).mean()))
                rows.append([name, cloud.label, len(xy), *(float(v) for v in centre), spread])
            drawn.append((ax, placed))
            label_axes(ax, pca, small)
        if share_axes:
            _same_limits([ax for ax, _ in drawn])
        legend(flat[0], outside=True, markerscale=2 if small else 1.5)
        for ax in flat[len(panels) :]:
            ax.set_visible(False)
        for ax, placed in drawn:
            hit += [Panel(c.points, c.colour, in_view_box(ax, xy)) for c, xy in placed]
    head = ["panel", "cloud", "points", "centre x", "centre y", "spread"]
    alt = f"{title}: scatter plots, " + ", ".join(name for name, _, _ in panels) + "."
    return Figure(key, title, caption, alt, Table(head, rows), canvas, hit)


def label_axes(ax: Axes, pca: PCA, small: bool = False) -> None:
    """Every axis says how much of the variance it holds."""
    ax.set_xlabel(f"PC 1 ({percent(share(pca, 0))})", labelpad=1 if small else 4)
    ax.set_ylabel(f"PC 2 ({percent(share(pca, 1))})", labelpad=1 if small else 4)
    if small:
        ax.tick_params(labelsize=6.5)


def share(pca: PCA, component: int) -> float:
    shares = pca.explained_variance_ratio_
    return float(shares[component]) if component < len(shares) else 0.0


def _share_on_axes(pca: PCA, rows: Floats) -> float:
    """Share of the rows' own variance that lies in the PCA's first two axes."""
    total = float(rows.astype(np.float64).var(0).sum())
    return float(pca.transform(rows.astype(np.float64))[:, :2].var(0).sum()) / max(total, 1e-12)


def _same_limits(axes: Sequence[Axes]) -> None:
    x = np.array([ax.get_xlim() for ax in axes])
    y = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_xlim(x[:, 0].min(), x[:, 1].max())
        ax.set_ylim(y[:, 0].min(), y[:, 1].max())


def layers(e: Evidence, text_points: str = "inner-text") -> Figure:
    """Audio and text positions inside the LM, layer by layer, before and after training."""
    trained, untrained, own = (e.lenses[c] for c in ("trained", "untrained", "text"))
    chosen = sorted({round(i * trained.n_layers / 4) for i in range(5)})
    panels = []
    for name, points, lens in (
        ("Before", "inner-before", untrained),
        ("After", "inner-after", trained),
    ):
        for layer in chosen:
            clouds = [
                Cloud(text_points, "text", TEXT, own.states[layer]),
                Cloud(points, "audio", AUDIO, lens.states[layer]),
            ]
            pca = fit_pca(np.concatenate([c.rows for c in _balance(clouds)]))
            at = "input" if layer == 0 else "output" if layer == lens.n_layers else f"layer {layer}"
            panels.append((f"{name}, {at}", pca, clouds))
    return _panels(
        "layers",
        "Inside the LM, layer by layer",
        "The stream at the audio positions of a training row, beside the same row with the "
        "transcript's own tokens in the audio's place, each vector scaled to unit RMS. Each "
        "panel has a PCA of its own: compare how the clouds lie to each other, not where.",
        panels,
        columns=len(chosen),
        share_axes=False,
    )


def _balance(clouds: Sequence[Cloud]) -> list[Cloud]:
    """Every k-th point of the larger cloud, so that neither rules the axes."""
    size = min(len(c.rows) for c in clouds)
    return [
        Cloud(
            c.points, c.label, c.colour, c.rows[np.linspace(0, len(c.rows) - 1, size).astype(int)]
        )
        for c in clouds
    ]


def words(e: Evidence, names: Sequence[str], texts: Sequence[str]) -> list[Figure]:
    """Soft tokens that read as a word, as centroids, joined to the word's own embedding.

    One figure by the input rows, before and after training, and one by the value rows.
    """
    caption = (
        "Soft tokens whose nearest text token is a spoken word, as the mean of each word, joined "
        "to the word's own embedding, both centred and of length 1. A soft token is near the word it is read as "
        "by choice, before training as well: count the words and compare the lines. A word that "
        "the tokenizer cuts into pieces can't show here."
    )
    panels = [("Before training", e.untrained, e.text), ("After training", e.trained, e.text)]
    title = "Words: what is read, and where the word is"
    found = [_words("words", title, caption, panels, names, texts)]
    if e.trained.value is not None and e.text.value is not None:
        found.insert(
            0,
            _words(
                "value-words", f"{title}, by the value rows", f"{caption} Before training there "
                "are no value rows.",
                [("After training", e.trained.value, e.text.value)], names, texts,
            ),
        )  # fmt: skip
    return found


def _words(
    key: str,
    title: str,
    caption: str,
    panels: Sequence[tuple[str, Audio, Text]],
    names: Sequence[str],
    texts: Sequence[str],
) -> Figure:
    spoken = {word for text in texts for word in text.split()}
    candidates = np.array([i for i, name in enumerate(names) if name.strip() in spoken])
    rows: list[list[str | float | int]] = []
    with style():
        canvas, axes = grid(1, len(panels), 9.0, 4.8)
        for ax, (panel, audio, text) in zip(axes[0], panels, strict=True):
            ids, counts = np.unique(audio.nearest, return_counts=True)
            kept = np.isin(ids, candidates)
            ids, counts = ids[kept], counts[kept]
            # A word may be two tokens, with and without its space: the more frequent stands for it.
            order = np.lexsort((ids, -counts))
            firsts = {names[ids[i]].strip(): int(i) for i in reversed(order)}
            ax.set_title(f"{panel}: {len(firsts)} of {len(spoken)} spoken words are read")
            top = np.array([i for i in order if firsts[names[ids[i]].strip()] == i][:WORDS_SHOWN])
            if len(top) < 3:
                ax.text(0.5, 0.5, "too few to draw", ha="center", transform=ax.transAxes,
                        color=MUTED)  # fmt: skip
                ax.set_xticks([])
                ax.set_yticks([])
                continue
            rows += _draw_words(ax, audio, text.table, ids[top], counts[top], names, panel)
    return Figure(
        key,
        title,
        caption,
        "Scatter plot of word centroids joined by lines to the words' embeddings.",
        Table(["panel", "word", "soft tokens", "cosine, centred"], rows or [["none", "", 0, 0.0]]),
        canvas,
    )


def _draw_words(
    ax: Axes,
    audio: Audio,
    table: Floats,
    ids: Ints,
    counts: Ints,
    names: Sequence[str],
    title: str,
) -> list[list[str | float | int]]:
    """Centroids and embeddings of the words `ids` on a PCA of both; the table's rows."""
    centre, _ = audio.moments.centre_and_variance(np.ones(len(audio.n_soft)))
    centroids = unit(np.stack([audio.rows[audio.nearest == i].mean(0) for i in ids]) - centre)
    wide = table[ids].astype(np.float64)
    own = unit(wide - wide.mean(0))
    pca = fit_pca(np.concatenate([centroids, own]))
    a, t = pca.transform(centroids), pca.transform(own)
    rows: list[list[str | float | int]] = []
    for i, (p, q) in enumerate(zip(a, t, strict=True)):
        ax.plot([p[0], q[0]], [p[1], q[1]], color=MUTED, lw=0.8, zorder=1)
        word = names[ids[i]].strip()
        ax.annotate(word, q, (3, 3), textcoords="offset points", fontsize=8, color=INK)
        rows.append([title, word, int(counts[i]), float(centroids[i] @ own[i])])
    ax.scatter(
        a[:, 0], a[:, 1], s=30, c=AUDIO, marker="o", zorder=2, label="mean of its soft tokens"
    )
    ax.scatter(t[:, 0], t[:, 1], s=30, c=TEXT, marker="^", zorder=2, label="the word's embedding")
    ax.margins(0.12)
    label_axes(ax, pca)
    legend(ax, loc="lower right")
    return rows
