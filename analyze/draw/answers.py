"""The picture of four-option questions: right answers beside those of every control, with intervals.

Must not know about pages, nor compute a number.
"""

from collections.abc import Mapping

from analyze.draw.svg import AUDIO, INK, MUTED, TEXT, Figure, Table, grid, percent, style
from omni.evaluation.choice_figures import CHANCE, CONTROL_WORDS, DEAF, GroupFigures

_RIGHT = "right audio"


def answers(key: str, title: str, groups: Mapping[str, GroupFigures]) -> Figure:
    """Accuracy by condition, a panel a group.

    Args:
        key: of the figure.
        groups: by name, "all" or what they need.
    """
    conditions = [_RIGHT, *(c for c in CONTROL_WORDS if any(c in g["controls"] for g in groups.values()))]  # fmt: skip
    rows: list[list[str | float | int]] = []
    with style():
        canvas, axes = grid(1, len(groups), 9.0, 0.9 + 0.33 * len(conditions), left=1.95)
        canvas.subplots_adjust(wspace=0.12, bottom=0.5 / canvas.get_figheight())
        for place, (ax, (name, group)) in enumerate(zip(axes[0], groups.items(), strict=True)):
            for y, condition in enumerate(conditions):
                if condition != _RIGHT and condition not in group["controls"]:
                    continue
                one = group if condition == _RIGHT else group["controls"][condition]
                low, high = one["interval"]
                colour = AUDIO if condition == _RIGHT else MUTED if condition in DEAF else TEXT
                mark = {AUDIO: "o", MUTED: "s", TEXT: "^"}[colour]
                ax.plot(
                    [100 * low, 100 * high], [y, y], color=colour, lw=1.6, solid_capstyle="butt"
                )
                ax.plot(100 * one["accuracy"], y, mark, color=colour, ms=6)
                words = CONTROL_WORDS.get(condition, _RIGHT)
                rows.append([name, words, one["n"], one["accuracy"], low, high])
            ax.axvline(100 * CHANCE, color=INK, lw=0.9, ls=":")
            ax.set_xlim(-2, 102)
            ax.set_ylim(len(conditions) - 0.5, -0.5)
            names = [CONTROL_WORDS.get(c, _RIGHT) if place == 0 else "" for c in conditions]
            ax.set_yticks(range(len(conditions)), names)
            ax.grid(visible=False, axis="y")
            ax.set_title(f"{name} ({group['n']:,})")
            ax.set_xlabel("right, %")
    best = ", ".join(f"{name} {percent(g['accuracy'])}" for name, g in groups.items())
    return Figure(
        key,
        title,
        "Share of four-option questions answered right, mean over four rotations, with Wilson's 95 % "
        "intervals. Orange circles: with the right audio. Grey squares: where nothing can be heard. Blue "
        "triangles: where the words are read. The dotted line is chance. Hearing is shown where orange "
        "lies clear of everything grey.",
        f"Dots with intervals by condition, a panel a group of questions. Right audio: {best}.",
        Table(["questions", "condition", "n", "right", "low", "high"], rows),
        canvas,
    )
