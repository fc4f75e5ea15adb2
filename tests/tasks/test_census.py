"""The census: what is in a table, and what nobody need hear to get right.

.venv/bin/python -m pytest tests/tasks/test_census.py
"""

from dataclasses import replace

import pytest
from tasks_kit import choice, header, heard

from omni.formats.tasks import Task, make_tasks
from tasks.census import census, lines
from tasks.mix import NO_TEXTS, Recipe, mix


def of(rows: list[Task]) -> str:
    return "\n".join(lines(census(make_tasks(header(), rows))))


def test_a_fair_table_raises_no_alert() -> None:
    table = mix(heard(600), Recipe(3000, {"repeat": 0.2, "content": 0.8}), NO_TEXTS)
    found = census(table)
    assert found.alerts == []
    assert found.n == 3000
    assert sum(kind.n for kind in found.kinds.values()) == 3000
    for guess in found.guesses:
        assert 0.21 < guess.accuracy < 0.29, guess


@pytest.mark.parametrize("letter", range(4))
def test_a_key_that_is_always_at_one_letter_is_caught(letter: int) -> None:
    text = of([choice(i, letter) for i in range(40)])
    assert f"alert: always {'ABCD'[letter]} gets 100% of 40 right" in text


def test_a_key_that_leans_is_caught() -> None:
    text = of([choice(i, i % 4 if i % 3 else 0) for i in range(240)])
    assert "alert: always A" in text
    assert "not as often at each letter" in text


def test_the_longest_option_and_the_commonest_answer_are_caught() -> None:
    long = [choice(i, i % 4, f"the right answer {i}") for i in range(40)]
    assert "alert: the longest option gets 100%" in of(long)
    same = [choice(i, i % 4, "samesame") for i in range(40)]
    assert "alert: the commonest answer gets 100%" in of(same)


def test_all_is_counted() -> None:
    rows = [choice(i, i % 4) for i in range(8)]
    rows.append(replace(rows[0], options=(), licence="MIT"))
    rows.append(Task("", "", "text", "Hello.", "Good day to you.", (), "none", "text", "unknown"))
    found = census(make_tasks(header(), rows))
    assert found.n == 10
    assert found.utterances == 8
    assert found.kinds["content/after"] == (9, 8, 8, (2, 2, 2, 2))
    assert found.kinds["text"] == (1, 0, 1, (0, 0, 0, 0))
    assert found.needs == {"none": 1, "words": 9}
    assert found.licences == {"CC0-1.0": 8, "MIT": 1, "unknown": 1}
    assert found.words == pytest.approx(1.3)
