"""Chance that stays the same: golden draws, and what every draw must keep.

.venv/bin/python -m pytest tests/tasks/test_dice.py
"""

from hypothesis import given
from hypothesis import strategies as st

from tasks.dice import Dice

GOLDEN = [572, 725, 285]
GOLDEN_ORDER = "efbdca"


def test_draws_are_those_of_every_other_day() -> None:
    """Found once; another Python or machine must find them too, or tables would change."""
    assert [Dice("a", 1).below(1000), Dice("a", 2).below(1000), Dice("b", 1).below(1000)] == GOLDEN
    assert Dice(7).shuffled("abcdef") == list(GOLDEN_ORDER)


@given(st.lists(st.integers(), max_size=20), st.integers(0, 25), st.integers())
def test_a_sample_holds_what_is_there(items: list[int], k: int, seed: int) -> None:
    found = Dice(seed).sample(items, k)
    assert len(found) == min(k, len(items))
    rest = list(items)
    for item in found:
        rest.remove(item)
    assert sorted(Dice(seed).shuffled(items)) == sorted(items)


@given(st.integers(1, 10**6), st.text())
def test_a_number_is_below(n: int, word: str) -> None:
    assert 0 <= Dice(word).below(n) < n
