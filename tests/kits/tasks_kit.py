"""Utterances and tables of tasks that the tests of mixes share."""

from collections.abc import Sequence

from omni.formats.shards import Sample
from omni.formats.tasks import Task, Tasks, TasksHeader, make_tasks
from tasks.dice import Dice
from tasks.sources import Heard, Sources

GRAMMAR = (
    ["set", "bring", "carry", "find", "hold", "wash", "move", "paint"],
    ["the"],
    ["silver", "yellow", "purple", "orange", "green", "black", "white", "crimson"],
    ["book", "ladder", "basket", "candle", "hammer", "window", "mirror", "blanket", "flower"],
    ["by", "under", "behind", "inside", "near", "across"],
    ["the"],
    ["river", "kitchen", "garden", "station", "church", "bridge", "forest", "castle"],
    ["at"],
    ["two", "three", "four", "six", "seven", "nine", "eleven", "twelve"],
)
# Open speech: other slots in other orders, so that no place of a sentence tells its word.
OPEN = tuple(
    line.split()
    for line in (
        "walked opened followed painted watched carried lifted answered remembered wanted",
        "slowly quickly gently never always suddenly nearly quietly often seldom",
        "people children soldiers sailors farmers doctors teachers neighbours strangers brothers",
        "letter window garden bottle carpet lantern hammer pocket saddle violin",
        "old narrow empty heavy cold bitter pleasant yellow crooked hollow",
        "because although before while until whenever unless wherever though since",
    )
)


def heard(n: int = 80, seed: int = 0, split: str = "train-a", noise: int = 0) -> Sources:
    """`n` sentences of a closed grammar and some open ones, of eight speakers; `noise` clips without speech."""
    found = []
    for i in range(n):
        dice = Dice("kit", seed, i)
        text = " ".join(dice.pick(slot) for slot in (GRAMMAR if i % 4 else _open(dice)))
        found.append(Heard(f"{split}-{i:04d}", split, text, str(i % 8), "FM"[i % 8 % 2], "CC0-1.0"))
    found += [Heard(f"noise-{i:04d}", "noise", "", "", "", "CC0-1.0") for i in range(noise)]
    return Sources(tuple(sorted(found)), ({"name": split, "n": n, "sha256": "0" * 64},))


def _open(dice: Dice) -> list[list[str]]:
    return dice.sample(OPEN, 4 + dice.below(3))


def header(role: str = "train") -> TasksHeader:
    return {
        "schema": 1,
        "role": "eval" if role == "eval" else "train",
        "seed": 0,
        "shares": {"content": 1.0},
        "shuffled": False,
        "inputs": [],
    }


def choice(i: int, letter: int, answer: str = "") -> Task:
    """A question about utterance `i` whose key stands at `letter`."""
    answer = answer or f"right{i:03d}"
    options = [f"wron{x}{i:03d}" for x in "xyz"]
    options.insert(letter, answer)
    return Task(
        f"u-{i:04d}", "train-a", "content/after", f'What follows "w{i}"?', answer, tuple(options),
        "words", "template", "CC0-1.0",
    )  # fmt: skip


def about(samples: Sequence[Sample], own: bool = False, texts: int = 0) -> Tasks:
    """Three rows about each utterance of `training_kit.speech`, a fourth with `own`: repeat it, its
    first word, which of four words was said; and rows of text alone."""
    rows = []
    for sample in samples:
        utterance, said = sample.meta["id"], sample.meta["text_norm"].split()
        wrong = [
            word for word in ("red", "cup", "door", "gold", "blue", "lamp") if word not in said
        ][:3]
        options = tuple(sorted([said[0], *wrong]))
        about_it = [
            ("repeat", "Repeat that.", " ".join(said), (), "template"),
            ("content/first", "First word?", said[0], (), "template"),
            ("content/heard-which", "Which was said?", said[0], options, "template"),
        ]
        if own:
            about_it.append(("self", "Go on.", said[-1], (), "self"))
        rows += [
            Task(utterance, "train-x", kind, prompt, answer, options, "words", source, "CC0-1.0")  # type: ignore[arg-type]
            for kind, prompt, answer, options, source in about_it
        ]
    rows += [
        Task("", "", "text", f"hi {i}", "ho", (), "none", "text", "CC0-1.0") for i in range(texts)
    ]
    return make_tasks(header(), rows)
