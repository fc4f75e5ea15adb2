"""Prompts: enough of them, a fifth kept from training, none in both.

.venv/bin/python -m pytest tests/tasks/test_wordings.py
"""

import re

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


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "self/"])
def test_what_is_held_out_is_new_in_its_wording_and_not_in_its_words(kind: str) -> None:
    """A tiny LM obeys only words that it has met, in a prompt of the same meaning."""
    met = ALL[kind].train
    if kind.startswith("repeat/"):
        met += ALL["repeat/plain"].train
    if kind == "none/said":  # silence answers whatever is asked
        met += sum((ALL[k].train for k in ("repeat/plain", "content/first", "content/last")), ())
    known = set(_words(" ".join(met)))
    for text in ALL[kind].held:
        assert set(_words(text)) <= known, text


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z{}']+", text.casefold())
