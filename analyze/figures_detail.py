"""The pictures of single utterances, distributions, layers as curves, and the training itself.

Same shape as `figures`: evidence in, one `Figure` out. Must not know about pages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyze.metrics import Floats, Ints
from analyze.numbers import Evidence, path_scores, similarity
from analyze.paths import best_path
from analyze.sample import Audio
from analyze.svg import (
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
    signed_colours,
    style,
)

Rows = list[list[str | float | int]]
MAX_LABELS = 40


def matrices(
    e: Evidence, names: Sequence[str], ids: Sequence[str], texts: Sequence[str], step_seconds: float
) -> Figure:
    """Similarity of soft tokens and text tokens: best, middle, worst utterance, and a wrong pair.

    Args:
        names: text of each token id. ids, texts: of the utterances. step_seconds: a soft token.
    """
    scores = path_scores(e.trained, e.text, np.arange(len(e.trained.n_soft))[: _detail(e)], e.seed)
    order = np.argsort(np.where(np.isfinite(scores), scores, -np.inf), kind="stable")[::-1]
    best, middle, worst = int(order[0]), int(order[len(order) // 2]), int(order[-1])
    shown = [
        ("Best", best, best),
        ("Middle", middle, middle),
        ("Worst", worst, worst),
        ("Control: the best one's audio, another's words", best, int(e.partner[best])),
    ]
    rows: Rows = []
    with style():
        canvas, axes = grid(2, 2, 9.0, 7.6, left=1.1)
        canvas.subplots_adjust(wspace=0.34)
        flat = [ax for line in axes for ax in line]
        for ax, (title, u, v) in zip(flat, shown, strict=True):
            values = similarity(e.trained, e.text, u, v).T  # (m tokens, n soft)
            seconds = values.shape[1] * step_seconds
            ax.imshow(
                signed_colours(values, 1.0), aspect="auto", interpolation="nearest",
                extent=(0.0, seconds, len(values) - 0.5, -0.5), rasterized=True,
            )  # fmt: skip
            score, path = best_path(values.T)
            ax.step(
                (np.arange(len(path)) + 0.5) * step_seconds, path, where="mid", color=INK, lw=1.2
            )
            tokens = [names[i].strip() or "␣" for i in e.text.ids[v]]
            every = -(-len(tokens) // MAX_LABELS)
            ax.set_yticks(range(0, len(tokens), every), tokens[::every], fontsize=7.5)
            ax.grid(False)
            ax.set_title(title, fontsize=9)
            ax.set_xlabel(f"seconds of {ids[u]}", fontsize=8, labelpad=1)
            own = path_scores_of(e, u, v)
            rows.append([title, ids[u], texts[v], score, own])
    return Figure(
        "matrices",
        "Audio time against words",
        "Cosine of each soft token (across) and each token of the transcript (down), both centred: "
        "orange above 0, blue below, clear at 0. The line is the best path that keeps the order. "
        "Nobody marked the words in time: the path is what the vectors suggest, not a forced "
        "alignment. The LM may also read audio that does not show here, through the value rows.",
        "Four heat maps of audio time against the transcript's tokens, with a path drawn through.",
        Table(["panel", "audio of", "transcript", "mean cosine on the path", "path score"], rows),
        canvas,
    )


def path_scores_of(e: Evidence, utterance: int, transcript: int) -> float:
    """Order advantage of one pair, by the report's seed."""
    to = np.full(utterance + 1, transcript)
    return float(path_scores(e.trained, e.text, to, e.seed)[-1])


def _detail(e: Evidence) -> int:
    """How many utterances have their single soft tokens kept."""
    return int(e.trained.utterance.max()) + 1


def path_cosines(e: Evidence, audio: Audio, to: Ints) -> Floats:
    """Centred cosine of every soft token and its text token on the path, all detail utterances."""
    found = []
    for u in range(_detail(e)):
        values = similarity(audio, e.text, u, int(to[u]))
        _, path = best_path(values)
        found.append(values[np.arange(len(path)), path])
    return np.concatenate(found)


def distributions(e: Evidence) -> Figure:
    """Cosines along the path with its controls, and the size of rows before the LM's norm."""
    own = np.arange(len(e.partner))
    cosines = [
        ("own transcript", AUDIO, "-", path_cosines(e, e.trained, own)),
        ("another's transcript", THIRD, "--", path_cosines(e, e.trained, e.partner)),
        ("untrained projector", FOURTH, ":", path_cosines(e, e.untrained, own)),
    ]
    sizes = [
        ("soft tokens, after", AUDIO, "-", e.trained.rms),
        ("soft tokens, before", FOURTH, ":", e.untrained.rms),
        ("text tokens", TEXT, "--", e.text.rms[np.concatenate(e.text.ids)]),
    ]
    rows: Rows = []
    with style():
        canvas, axes = grid(1, 2, 9.0, 3.4)
        left, right = axes[0]
        for name, colour, line, x in cosines:
            _outline(left, x, np.linspace(-1, 1, 61), name, colour, line)
            rows.append(["cosine on the path", name, len(x), *_quartiles(x)])
        left.set_title("Cosine along the path")
        left.set_xticks([-1, -0.5, 0, 0.5, 1])
        left.set_xlabel("centred cosine of a soft token and its text token")
        positive = np.concatenate([x[x > 0] for *_, x in sizes])
        edges = np.geomspace(positive.min() * 0.9, positive.max() * 1.1, 61)
        for name, colour, line, x in sizes:
            _outline(right, x, edges, name, colour, line)
            rows.append(["RMS before the norm", name, len(x), *_quartiles(x)])
        right.set_xscale("log")
        for axis in (right.xaxis.set_major_formatter, right.xaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:g}" if f"{value:.1e}"[0] in "125" else "")
        right.set_title("Size before the LM's norm")
        right.set_xlabel("RMS of the row (the norm makes all of them 1)")
        for ax in (left, right):
            ax.set_ylabel("share of tokens")
            legend(ax)
    return Figure(
        "distributions",
        "Cosines and sizes",
        "Left: how similar soft tokens are to the text tokens that the best path gives them. A "
        "best path exists in anything, so compare with the two controls, never with 0. Right: "
        "the size of the rows; the LM's norm takes it away, but training feels it.",
        "Two histograms: cosines along the alignment path, and row sizes before the norm.",
        Table(["what", "of", "tokens", "lower quartile", "median", "upper quartile"], rows),
        canvas,
    )


def _outline(ax: Any, x: Floats, edges: Floats, name: str, colour: str, line: str) -> None:
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
        canvas, axes = grid(1, 2, 9.0, 4.2)
        canvas.subplots_adjust(bottom=0.31)
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
                legend(ax, loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=2)
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
