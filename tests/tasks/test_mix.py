"""A mix: so many rows of each share, keys in balance, the same table every time.

.venv/bin/python -m pytest tests/tasks/test_mix.py
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks_kit import heard

from omni.errors import OmniError
from omni.formats.tasks import Task, write_tasks
from tasks.mix import NO_TEXTS, Recipe, Texts, mix
from tasks.replay import Exchange
from tasks.shares import DEFAULT
from tasks.sources import Sources

SOURCES = heard(120, noise=12)
CHATS = [Exchange(f"Question {i}?", f"Answer {i}.") for i in range(60)]


def own(asked: Sequence[tuple[str, str]]) -> list[str]:
    """An LM that answers with the last word, and nothing to those that begin with `a`."""
    return ["" if text.startswith("a ") else text.split()[-1] for text, _ in asked]


TEXTS = Texts(CHATS, None, own)


def made(rows: int = 400, sources: Sources = SOURCES, **changes: Any) -> tuple[Task, ...]:
    return mix(sources, Recipe(rows, DEFAULT, **changes), TEXTS).rows


def test_each_share_has_its_rows() -> None:
    rows = made()
    counts = Counter(row.kind.partition("/")[0] for row in rows)
    silent = counts.pop("self")
    assert 30 <= silent <= 40  # an answer of nothing is no row
    assert counts == {"repeat": 120, "content": 100, "voice": 80, "none": 20, "text": 40}


def test_the_same_bytes_every_time_and_others_for_another_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_tasks(mix(SOURCES, Recipe(400, DEFAULT, seed), TEXTS), tmp_path / name)
    one, two, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == two != other


@settings(max_examples=10, deadline=None)
@given(st.integers(40, 600), st.integers(0, 5))
def test_each_letter_is_the_key_as_often(rows: int, seed: int) -> None:
    table = mix(SOURCES, Recipe(rows, {"content": 0.8, "voice": 0.2}, seed), NO_TEXTS).rows
    by_kind: dict[str, Counter[int]] = {}
    for row in table:
        if row.options:
            by_kind.setdefault(row.kind, Counter())[row.key] += 1
    for keys in by_kind.values():
        assert len({keys[i] for i in range(4)}) == 1, keys
    assert len(table) == rows


def test_a_table_that_judges_has_options_alone_and_wordings_of_its_own() -> None:
    judges = heard(100, split="dev-a", noise=24)
    recipe = Recipe(200, {"content": 0.8, "none": 0.2}, role="eval")
    table = mix(judges, recipe, NO_TEXTS)
    assert table.header["role"] == "eval"
    assert len(table.rows) == 200
    assert all(len(row.options) == 4 for row in table.rows)
    assert Counter(row.key for row in table.rows) == {0: 50, 1: 50, 2: 50, 3: 50}

    def shape(row: Task) -> str:
        return row.prompt.partition('"')[0]

    assert not {shape(row) for row in table.rows} & {shape(row) for row in made()}
    nothing = [row for row in table.rows if row.kind == "none/which"]
    silent = [row for row in nothing if row.id.startswith("noise")]
    assert 0 <= len(nothing) - len(silent) * 4 < 16
    assert {row.answer for row in silent} == {"none of these"}


@pytest.mark.parametrize(
    ("shares", "changes", "told"),
    [
        ({"none": 1.0}, {"sources": heard(40)}, "without speech"),
        ({"self": 0.5, "repeat": 0.5}, {"texts": NO_TEXTS}, "no LM"),
        ({"text": 1.0}, {"texts": NO_TEXTS}, "no chats"),
        ({"repeat": 1.0}, {"role": "eval"}, "holds options"),
        ({"voice": 1.0}, {"role": "eval"}, "four options"),
        ({"voice": 1.0}, {"sources": "unlabelled"}, "label"),
        ({"content": 1.0}, {"sources": "silent"}, "words to ask"),
    ],
)
def test_what_can_t_be_had_is_refused_in_words_or_left_out(
    shares: dict[str, float], changes: dict[str, Any], told: str
) -> None:
    sources = changes.get("sources", SOURCES)
    if sources == "unlabelled":
        rows = tuple(replace(h, sex="", speaker="") for h in SOURCES.heard)
        sources = Sources(rows, SOURCES.inputs)
    if sources == "silent":
        rows = tuple(h for h in SOURCES.heard if not h.text)
        sources = Sources(rows, SOURCES.inputs)
    texts = changes.get("texts", TEXTS)
    role = changes.get("role", "train")
    with pytest.raises(OmniError, match=told):
        mix(sources, Recipe(40, shares, role=role, strict=True), texts)
    said: list[str] = []
    if len(shares) > 1:
        table = mix(sources, Recipe(40, shares, role=role), texts, said.append)
        assert len(table.rows) == 40
        assert any(told in line for line in said)


def test_more_rows_than_can_differ_are_refused() -> None:
    few = heard(4)
    with pytest.raises(OmniError, match=r"only .* different rows of repeat"):
        mix(few, Recipe(5000, {"repeat": 1.0}), NO_TEXTS)
    with pytest.raises(OmniError, match="from 60 chats"):
        mix(SOURCES, Recipe(61, {"text": 1.0}), TEXTS)
    with pytest.raises(OmniError, match="rows of self from 4 utterances"):
        mix(few, Recipe(100, {"self": 1.0}), TEXTS)


def test_shuffled_pairs_leave_no_row_with_its_own_utterance() -> None:
    own_rows, moved = made(), made(shuffled=True)
    true = {(row.id, row.kind, row.prompt, row.answer) for row in own_rows}
    kept = [row for row in moved if row.id and (row.id, row.kind, row.prompt, row.answer) in true]
    assert len(kept) < 0.05 * len(moved)  # "Nothing is said." may be true of another clip too
    assert Counter(row.kind for row in moved) == Counter(row.kind for row in own_rows)
    said = {h.id: h.text for h in SOURCES.heard}
    told = [said[row.id] == row.answer for row in moved if row.kind == "repeat"]
    assert not any(told)
    assert mix(SOURCES, Recipe(40, DEFAULT, shuffled=True), TEXTS).header["shuffled"]


def test_a_corpus_of_one_length_is_not_asked_how_many_words() -> None:
    """Its answer would be known without hearing."""
    fixed = Sources(tuple(h for h in SOURCES.heard if " at " in h.text), SOURCES.inputs)
    kinds = {row.kind for row in mix(fixed, Recipe(200, {"content": 1.0}), NO_TEXTS).rows}
    assert "content/count" not in kinds
    open_speech = Sources(tuple(h for h in SOURCES.heard if " at " not in h.text), SOURCES.inputs)
    assert "content/count" in {
        row.kind for row in mix(open_speech, Recipe(100, {"content": 1.0}), NO_TEXTS).rows
    }
