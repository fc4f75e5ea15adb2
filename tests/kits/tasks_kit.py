"""Utterances and tables of tasks that the tests of mixes share."""

from omni.formats.tasks import Task, TasksHeader
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
