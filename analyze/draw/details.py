"""The pictures of single utterances, distributions, curves, encoder frames and the training.

Same shape as `figures`: evidence in, one `Figure` out. Must not know about pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analyze.draw.clouds import Picked, label_axes, share
from analyze.draw.svg import (
    AUDIO,
    FOURTH,
    INK,
    MUTED,
    TEXT,
    THIRD,
    Figure,
    Table,
    grid,
    legend,
    percent,
    signed_colours,
    style,
)
from analyze.measure.alignment import best_path, order_advantage
from analyze.measure.formulas import Floats, Ints
from analyze.measure.position import fit_pca, position_r2, remove_position
from analyze.measure.sample import Audio, Text
from analyze.measure.table import MAX_PATHS, Evidence, path_scores, similarity

Rows = list[list[str | float | int]]
MAX_LABELS = 40
COMPONENTS = 20


def matrices(
    e: Evidence, names: Sequence[str], ids: Sequence[str], texts: Sequence[str], step_seconds: float
) -> list[Figure]:
    """Similarity of soft tokens and text tokens: best, middle, worst utterance, and a wrong pair.

    One figure for the input rows and, where there are any, one for the value rows, of the same
    utterances: ranked by the latter's path score, since that is where nanochat copies from.

    Args:
        names: text of each token id. ids, texts: of the utterances. step_seconds: a soft token.
    """
    spaces = [("matrices", "Audio time against words", e.trained, e.text)]
    if e.trained.value is not None and e.text.value is not None:
        title = "Audio time against words, by the value rows"
        spaces.insert(0, ("value-matrices", title, e.trained.value, e.text.value))
    _, _, audio, text = spaces[0]
    scores = path_scores(audio, text, np.arange(min(audio.detail, MAX_PATHS)), e.seed)
    order = np.argsort(np.where(np.isfinite(scores), scores, -np.inf), kind="stable")[::-1]
    best, middle, worst = int(order[0]), int(order[len(order) // 2]), int(order[-1])
    shown = [
        ("Best", best, best),
        ("Middle", middle, middle),
        ("Worst", worst, worst),
        ("Control: the best one's audio, another's words", best, int(e.partner[best])),
    ]
    found = []
    for key, title, audio, text in spaces:
        drawn = _Matrices(audio, text, names, ids, texts, step_seconds, e.seed)
        found.append(drawn.figure(key, title, shown))
    return found


@dataclass(frozen=True)
class _Matrices:
    """Heat maps of pairs (audio of one utterance, transcript of another or the same)."""

    audio: Audio
    text: Text
    names: Sequence[str]
    ids: Sequence[str]
    texts: Sequence[str]
    step_seconds: float
    seed: int

    def figure(self, key: str, title: str, shown: Sequence[tuple[str, int, int]]) -> Figure:
        """`shown`: title, utterance whose audio is taken, utterance whose transcript is."""
        rows: Rows = []
        with style():
            canvas, axes = grid(2, 2, 9.0, 7.6, left=1.1)
            canvas.subplots_adjust(wspace=0.34)
            flat = [ax for line in axes for ax in line]
            for ax, (name, u, v) in zip(flat, shown, strict=True):
                score = self._panel(ax, u, v)
                ax.set_title(name, fontsize=9)
                own = float(path_scores_of(self.audio, self.text, u, v, self.seed))
                rows.append([name, self.ids[u], self.texts[v], score, own])
        return Figure(
            key,
            title,
            "Cosine of each soft token (across) and each token of the transcript (down), both "
            "centred: orange above 0, blue below, clear at 0. The line is the best path that keeps "
            "the order. Nobody marked the words in time: the path is what the vectors suggest, not "
            "a forced alignment. The best path exists in anything: look at the control.",
            "Four heat maps of audio time against the transcript's tokens, with a path through.",
            Table(
                ["panel", "audio of", "transcript", "mean cosine on the path", "path score"], rows
            ),
            canvas,
        )

    def _panel(self, ax: Axes, u: int, v: int) -> float:
        """Draws one pair; returns the mean cosine on its path."""
        values = similarity(self.audio, self.text, u, v).T  # (m tokens, n soft)
        seconds = values.shape[1] * self.step_seconds
        ax.imshow(
            signed_colours(values, max(0.3, float(np.quantile(np.abs(values), 0.995)))),
            aspect="auto", interpolation="nearest",
            extent=(0.0, seconds, len(values) - 0.5, -0.5), rasterized=True,
        )  # fmt: skip
        score, path = best_path(values.T)
        middles = (np.arange(len(path)) + 0.5) * self.step_seconds
        ax.step(middles, path, where="mid", color=INK, lw=1.2)
        tokens = [self.names[i].strip() or "␣" for i in self.text.ids[v]]
        every = -(-len(tokens) // MAX_LABELS)
        ax.set_yticks(range(0, len(tokens), every), tokens[::every], fontsize=7.5)
        ax.grid(False)
        ax.set_xlabel(f"seconds of {self.ids[u]}", fontsize=8, labelpad=1)
        return score


def path_scores_of(audio: Audio, text: Text, utterance: int, transcript: int, seed: int) -> float:
    """Order advantage of one pair."""
    rng = np.random.default_rng(seed)
    return order_advantage(similarity(audio, text, utterance, transcript), rng, reorderings=64)


def path_cosines(audio: Audio, text: Text, to: Ints) -> Floats:
    """Centred cosine of every soft token and its text token on the best path."""
    found = []
    for u in range(min(audio.detail, MAX_PATHS)):
        values = similarity(audio, text, u, int(to[u]))
        _, path = best_path(values)
        found.append(values[np.arange(len(path)), path])
    return np.concatenate(found)


def distributions(e: Evidence) -> Figure:
    """Cosines along the path with their controls, and the size of rows before the LM's norm."""
    spaces: list[tuple[str, Audio, Audio | None, Text]]
    spaces = [("Cosine on the path, input rows", e.trained, e.untrained, e.text)]
    if e.trained.value is not None and e.text.value is not None:
        title = "Cosine on the path, value rows"
        spaces.append((title, e.trained.value, e.untrained.value, e.text.value))
    rows: Rows = []
    with style():
        canvas, axes = grid(1, len(spaces) + 1, 9.0, 3.4)
        for ax, (title, trained, untrained, text) in zip(axes[0], spaces, strict=False):
            rows += _cosines(ax, title, trained, untrained, text, e.partner)
        rows += _sizes(axes[0][-1], e)
        for ax in axes[0]:
            ax.title.set_fontsize(9)
            ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
            legend(ax, fontsize=7)
        axes[0][0].set_ylabel("share of tokens")
    return Figure(
        "distributions",
        "Cosines and sizes",
        "How similar soft tokens are to the text tokens that the best path gives them: a best "
        "path exists in anything, so compare with the controls, never with 0. Last, the size of "
        "the input rows; the LM's norm takes it away, but training feels it.",
        "Histograms: cosines along the alignment path, and row sizes before the norm.",
        Table(["what", "of", "tokens", "lower quartile", "median", "upper quartile"], rows),
        canvas,
    )


def _cosines(
    ax: Axes, title: str, trained: Audio, untrained: Audio | None, text: Text, partner: Ints
) -> Rows:
    own = np.arange(len(partner))
    series = [
        ("own transcript", AUDIO, "-", path_cosines(trained, text, own)),
        ("another's transcript", THIRD, "--", path_cosines(trained, text, partner)),
    ]
    if untrained is not None:
        series.append(("untrained projector", FOURTH, ":", path_cosines(untrained, text, own)))
    every = np.concatenate([x for *_, x in series])
    edges = np.linspace(float(every.min()) - 0.02, float(every.max()) + 0.02, 51)
    for name, colour, line, x in series:
        _outline(ax, x, edges, name, colour, line)
    ax.set_title(title)
    ax.set_xlabel("centred cosine")
    return [[title, name, len(x), *_quartiles(x)] for name, _, _, x in series]


def _sizes(ax: Axes, e: Evidence) -> Rows:
    series = [
        ("soft tokens, after", AUDIO, "-", e.trained.rms),
        ("soft tokens, before", FOURTH, ":", e.untrained.rms),
        ("text tokens", TEXT, "--", e.text.rms[np.concatenate(e.text.ids)]),
    ]
    positive = np.concatenate([x[x > 0] for *_, x in series])
    edges = np.geomspace(positive.min() * 0.9, positive.max() * 1.1, 51)
    for name, colour, line, x in series:
        _outline(ax, x, edges, name, colour, line)
    ax.set_xscale("log")
    for formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}" if f"{value:.1e}"[0] in "125" else "")
    title = "Size before the LM's norm"
    ax.set_title(title)
    ax.set_xlabel("RMS of the row")
    return [[title, name, len(x), *_quartiles(x)] for name, _, _, x in series]


def _outline(ax: Axes, x: Floats, edges: Floats, name: str, colour: str, line: str) -> None:
    counts, _ = np.histogram(x, edges)
    ax.stairs(counts / max(len(x), 1), edges, color=colour, linestyle=line, lw=1.8, label=name)


def _quartiles(x: Floats) -> list[float]:
    return [float(q) for q in np.quantile(x, [0.25, 0.5, 0.75])]


def lens_curves(e: Evidence) -> Figure:
    """Logit lens by layer: the answer's tokens right, and the transcript named at audio positions."""
    order = [
        ("trained", "after training", AUDIO, "-"),
        ("untrained", "untrained projector", FOURTH, ":"),
        ("shuffled", "another's audio", THIRD, "--"),
        ("text", "text in the audio's place", TEXT, "-."),
    ]
    rows: Rows = []
    with style():
        canvas, axes = grid(1, 2, 9.0, 3.4)
        left, right = axes[0]
        for key, name, colour, line in order:
            lens = e.lenses[key]
            answer = lens.correct.sum(0) / lens.n_answer.sum()
            named = lens.audio_hits.sum(0) / lens.n_audio.sum()
            x = np.arange(len(answer))
            left.plot(x, 100 * answer, line, color=colour, marker="o", ms=3.5, label=name)
            right.plot(x, 100 * named, line, color=colour, marker="o", ms=3.5, label=name)
            rows += [[name, int(k), float(answer[k]), float(named[k])] for k in x]
        left.set_title("Answer positions")
        left.set_ylabel("next token right, %")
        right.set_title("Audio positions")
        right.set_ylabel("top token is in the transcript, %")
        for ax in (left, right):
            ax.set_xlabel("layer (0: the input, last: the output)")
            ax.set_xticks(x[:: -(-len(x) // 12)])
            ax.set_ylim(0, 102)
        legend(left, loc="upper left")
    return Figure(
        "lens",
        "What each layer would say",
        "The LM's own read-out applied to every layer. Left: where the answer is written, the "
        "share of tokens already right. Right: at audio positions, how often a token of the "
        "transcript stands first (a transcript's common tokens can stand there by luck: compare "
        "with another's audio).",
        "Two line charts by layer: right answer tokens, and transcript tokens named at audio.",
        Table(["audio", "layer", "answer right", "transcript named"], rows),
        canvas,
    )


def training_curves(lines: Sequence[Mapping[str, Any]]) -> Figure | None:
    """CE with right and wrong audio, accuracy and WER over the run; None if nothing was logged."""
    groups = [
        ("Cross-entropy, nats a token", 1.0, (
            ("loss", "training loss", MUTED, "-"), ("ce", "right audio", AUDIO, "-"),
            ("ce_shuffled", "another's audio", THIRD, "--"), ("ce_none", "no audio", TEXT, ":"),
        )),
        ("Token accuracy and WER, %", 100.0, (
            ("token_accuracy", "token accuracy", AUDIO, "-"), ("wer", "WER", TEXT, "--"),
        )),
    ]  # fmt: skip
    rows: Rows = []
    with style():
        canvas, axes = grid(1, 2, 9.0, 4.9)
        canvas.subplots_adjust(bottom=0.38)
        for ax, (title, scale, series) in zip(axes[0], groups, strict=True):
            for key, name, colour, line in series:
                for split, points in _series(lines, key).items():
                    x, y = np.array(points).T
                    label = name + (
                        f", {split}" if split else "" if key == "loss" else ", training"
                    )
                    own = {"color": colour, "marker": "o", "ms": 3} if split else {"color": MUTED}
                    ax.plot(x, scale * y, line, lw=1.4 if split else 0.9, label=label, **own)
                    rows += [[label, int(x[i]), float(y[i])] for i in _spread(len(x), 6)]
            ax.set_title(title)
            ax.set_xlabel("step")
            if ax.lines:
                legend(ax, loc="upper left", bbox_to_anchor=(-0.02, -0.14), fontsize=7.5)
    if not rows:
        return None
    return Figure(
        "training",
        "The training run",
        "What the trainer logged. The gap between right and shuffled audio is the listening; "
        "a falling loss alone can be the LM's guessing.",
        "Two line charts over training steps: cross-entropies, and accuracy with word error rate.",
        Table(["series", "step", "value"], rows),
        canvas,
    )


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[tuple[float, float]]]:
    """Points (step, value) of a logged figure: held out by split, or "" for the training's own.

    Evaluations are nested: `{"step": 100, "eval": {split: {figure: value}}}`.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        nested = line["eval"].items() if "eval" in line else [("", line)]
        for split, figures in nested:
            value = figures.get(key)
            if isinstance(value, int | float) and np.isfinite(value):
                found.setdefault(split, []).append((line["step"], value))
    return found


def _spread(n: int, limit: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, limit))})


def encoder_frames(frames: Floats, step: Ints, step_seconds: float) -> Figure:
    """Raw encoder features (P, d) coloured by time, before and after removing position."""
    cleaned, kept = remove_position(frames, step)
    versions = [("As they come", frames, step)]
    if len(cleaned) > 10:
        versions.append(("Position's mean removed", cleaned, step[kept]))
    rows: list[list[str | float | int]] = []
    with style():
        canvas, axes = grid(1, 2, 9.6)
        canvas.subplots_adjust(right=0.9)
        last = float(step.max() * step_seconds)
        for ax, (name, x, t) in zip(axes[0], versions, strict=False):
            pca = fit_pca(x, 3)
            xy = pca.transform(x.astype(np.float64))
            marks = ax.scatter(
                xy[:, 0], xy[:, 1], s=6, c=t * step_seconds, cmap="viridis", alpha=0.7, linewidths=0,
                rasterized=True, vmin=0, vmax=last,
            )  # fmt: skip
            ax.set_title(name)
            label_axes(ax, pca)
            rows += [
                [name, i + 1, share(pca, i), position_r2(xy[:, i], t)] for i in range(xy.shape[1])
            ]
        bar = canvas.colorbar(marks, cax=canvas.add_axes((0.92, 0.14, 0.012, 0.74)))
        bar.set_label("seconds")
        bar.outline.set_visible(False)
        for ax in axes[0][len(versions) :]:
            ax.set_visible(False)
    clock = float(np.nan_to_num(rows[0][3]))
    caption = (
        f"Frames of the encoder itself, coloured by time. A smooth curve over time explains "
        f"{percent(clock)} of the first component as the features come: a PCA of them draws a clock. "
        "On the right the mean of each position over the utterances is taken off, at positions "
        "that at least five utterances reach."
    )
    return Figure(
        "encoder",
        "Raw encoder features: mind the clock",
        caption,
        "Two scatter plots of encoder frames coloured by time, before and after removing position.",
        Table(["version", "component", "share of variance", "R2 of time"], rows),
        canvas,
    )


def variance(e: Evidence, picked: Picked) -> Figure:
    """Cumulative explained variance of each cloud."""
    clouds = [
        ("text tokens", TEXT, "-", e.text.rows[picked.text]),
        ("soft tokens, after", AUDIO, "-", e.trained.rows[picked.audio]),
        ("soft tokens, before", AUDIO, ":", e.untrained.rows[picked.audio]),
    ]
    rows: list[list[str | float | int]] = []
    with style():
        canvas, axes = grid(1, 1, 9.0, 3.0)
        ax = axes[0][0]
        for name, colour, line, x in clouds:
            shares = np.cumsum(fit_pca(x, COMPONENTS).explained_variance_ratio_)
            ax.plot(np.arange(1, len(shares) + 1), 100 * shares, line, color=colour, label=name)
            rows += [
                [name, k, float(shares[k - 1])] for k in (1, 2, 3, 5, 10, 20) if k <= len(shares)
            ]
        ax.set_xlabel("components")
        ax.set_xticks([1, 5, 10, 15, 20])
        ax.set_ylabel("variance explained, %")
        ax.set_ylim(0, 100)
        legend(ax, loc="lower right")
    return Figure(
        "variance",
        "How much of each cloud the first components hold",
        "Each cloud's own PCA. A soft-token cloud much flatter than the text's says fewer things.",
        "Curves of cumulative explained variance by number of components.",
        Table(["cloud", "components", "cumulative share"], rows),
        canvas,
    )
