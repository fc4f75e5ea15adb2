"""What is in a table, and what who hears nothing would get right in it.

Must not know how the table was made: it counts whatever is there.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from omni.evaluation.intervals import wilson
from omni.formats.tasks import LETTERS, Task, Tasks, key_counts, lopsided

CHANCE = 1 / len(LETTERS)
_SURE = 3.29  # an alert is for what chance does once in a thousand tables


class Guess(NamedTuple):
    """A way to answer without hearing: how many of n it gets right, and its 95 % interval."""

    name: str
    right: int
    n: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """Share of right ones."""
        return self.right / self.n


class Census(NamedTuple):
    """kinds: rows, those with options, wordings, and keys at A to D of each; words: mean of an
    answer; alerts: what makes the table no measure of hearing."""

    n: int
    utterances: int
    kinds: dict[str, "KindCensus"]
    needs: dict[str, int]
    licences: dict[str, int]
    words: float
    guesses: list[Guess]
    alerts: list[str]


class KindCensus(NamedTuple):
    """One kind."""

    n: int
    options: int
    wordings: int
    keys: tuple[int, ...]


def census(tasks: Tasks) -> Census:
    """Count a table."""
    rows = tasks.rows
    by_kind: dict[str, list[Task]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row)
    guesses = _guesses([row for row in rows if row.options])
    keys = key_counts(rows)
    alerts = [
        f"{guess.name} gets {guess.accuracy:.0%} of {guess.n:,} right, chance is {CHANCE:.0%}"
        for guess in guesses
        if wilson(guess.right, guess.n, _SURE)[0] > CHANCE
    ]
    if said := lopsided(keys):
        alerts.append(said)
    return Census(
        n=len(rows),
        utterances=len({row.id for row in rows if row.id}),
        kinds={kind: _kind(mine) for kind, mine in sorted(by_kind.items())},
        needs=dict(sorted(Counter(row.needs for row in rows).items())),
        licences=dict(sorted(Counter(row.licence for row in rows).items())),
        words=sum(len(row.answer.split()) for row in rows) / len(rows),
        guesses=guesses,
        alerts=alerts,
    )


def lines(found: Census) -> list[str]:
    """The census as a page of text."""
    out = [
        f"{found.n:,} rows about {found.utterances:,} utterances, answers of {found.words:.1f} words",
        f"{'kind':20} {'rows':>7} {'options':>7} {'prompts':>7}  key at A/B/C/D",
    ]
    for kind, k in found.kinds.items():
        keys = "/".join(map(str, k.keys)) if k.options else ""
        out.append(f"{kind:20} {k.n:7,} {k.options:7,} {k.wordings:7,}  {keys}".rstrip())
    out.append("needs: " + ", ".join(f"{name} {n:,}" for name, n in found.needs.items()))
    out.append("licences: " + ", ".join(f"{name} {n:,}" for name, n in found.licences.items()))
    out += [
        f"without hearing, {guess.name}: {guess.accuracy:.1%} ({guess.low:.1%} to {guess.high:.1%})"
        for guess in found.guesses
    ]
    return [*out, *(f"alert: {alert}" for alert in found.alerts)]


def _kind(rows: Sequence[Task]) -> KindCensus:
    with_options = [row for row in rows if row.options]
    return KindCensus(
        len(rows), len(with_options), len({row.prompt for row in rows}), key_counts(rows)
    )


def _guesses(rows: Sequence[Task]) -> list[Guess]:
    """Strategies that others' benchmarks have fallen to: one letter always, the longest option, and
    the one that is most often the answer to that kind about other utterances."""
    if not rows:
        return []
    keys = key_counts(rows)
    letter = max(range(len(keys)), key=lambda i: keys[i])
    answers = Counter((row.kind, row.answer) for row in rows)
    here = Counter((row.kind, row.answer, row.id) for row in rows)

    def commonest(row: Task) -> str:
        def count(option: str) -> int:
            return answers[row.kind, option] - here[row.kind, option, row.id]

        most = max(count(option) for option in row.options)
        at = [option for option in row.options if count(option) == most]
        return at[sum(map(ord, row.prompt + row.id)) % len(at)]  # a tie is broken without the key

    def longest(row: Task) -> str:
        most = max(map(len, row.options))
        at = [option for option in row.options if len(option) == most]
        return at[sum(map(ord, row.prompt + row.id)) % len(at)]

    found = {
        f"always {LETTERS[letter]}": keys[letter],
        "the longest option": sum(longest(row) == row.answer for row in rows),
        "the commonest answer": sum(commonest(row) == row.answer for row in rows),
    }
    return [
        Guess(name, right, len(rows), *wilson(right, len(rows))) for name, right in found.items()
    ]
