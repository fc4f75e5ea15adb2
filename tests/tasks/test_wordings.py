"""Prompts: enough of them, a fifth kept from training, none in both.

.venv/bin/python -m pytest tests/tasks/test_wordings.py
"""

import pytest

from tasks.wordings import CONTENT, NOTHING, REPEAT, SELF, VOICE, Wordings

ALL = {
    f"{name}/{kind}": wordings
    for name, kinds in (
        ("repeat", REPEAT),
        ("content", CONTENT),
        ("voice", VOICE),
        ("none", NOTHING),
        ("self", {"": SELF}),
    )
    for kind, wordings in kinds.items()
}


def test_repeating_is_asked_for_in_forty_wordings() -> None:
    assert sum(len(w.train) + len(w.held) for w in REPEAT.values()) >= 40


@pytest.mark.parametrize("kind", ALL)
def test_a_fifth_is_held_out(kind: str) -> None:
    w = ALL[kind]
    assert len(w.held) >= 0.2 * (len(w.train) + len(w.held))
    every = [text.casefold() for text in (*w.train, *w.held)]
    assert len(set(every)) == len(every)
    assert all(text == text.strip() and text[-1] in ".?" for text in every)
    asks = {"{word}" in text for text in every}
    assert len(asks) == 1


def test_no_wording_trains_here_and_judges_there() -> None:
    train = {text.casefold() for w in ALL.values() for text in w.train}
    held = {text.casefold() for w in ALL.values() for text in w.held}
    assert not train & held
    assert Wordings(("a",), ("b",)).of("eval") == ("b",)
