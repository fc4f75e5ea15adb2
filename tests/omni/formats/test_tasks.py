"""The table of tasks: what is written is read, what is none is told, options move on.

.venv/bin/python -m pytest tests/omni/formats/test_tasks.py
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks_kit import choice, header

from omni.errors import OmniError
from omni.formats.tasks import LETTERS, Task, make_tasks, question, read_tasks, write_tasks

ROWS = [choice(i, i % 4) for i in range(6)]
TEXT = Task("", "", "text", "Hello.", "Good day.", (), "none", "text", "unknown")


def test_what_is_written_is_read_and_has_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    table = make_tasks(header(), [*ROWS, TEXT])
    write_tasks(table, tmp_path / "a.parquet")
    write_tasks(make_tasks(header(), [TEXT, *ROWS[::-1]]), tmp_path / "b.parquet")
    assert read_tasks(tmp_path / "a.parquet") == table
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert table.rows[0] == TEXT  # rows of no utterance come first
    assert set(table.of_utterances()) == {"", *(row.id for row in ROWS)}


@given(st.integers(0, 3), st.integers(-9, 9))
def test_a_rotation_moves_options_and_key_and_changes_nothing_else(place: int, turn: int) -> None:
    task = choice(1, place)
    asked = question(task, turn)
    assert sorted(asked.options) == sorted(task.options)
    assert asked.options[LETTERS.index(asked.key)] == task.answer
    lines = asked.prompt.split("\n")
    assert lines[0] == task.prompt
    assert lines[1:] == [f"- {o}={x}" for o, x in zip(asked.options, LETTERS, strict=True)]
    assert {question(task, turn + i).key for i in range(4)} == set(LETTERS)


def test_an_open_question_is_its_prompt() -> None:
    assert question(TEXT) == ("Hello.", "", ())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"options": ("a", "b", "c", "d", "right000")}, "5 options"),
        ({"options": ("a", "b", "right000")}, "3 options"),
        ({"options": ("right000", "a", "b", "A ")}, "equal"),
        ({"options": ("a", "b", "c", "d")}, "none of its options"),
        ({"options": ("right000", "a", "", "d")}, "empty"),
        ({"options": ("right000", "a", "b\nc", "d")}, "longer than a line"),
        ({"prompt": " "}, "prompt is empty"),
        ({"answer": "", "options": ()}, "answer is empty"),
        ({"kind": "Content"}, "kind"),
        ({"kind": "a/b/c"}, "kind"),
        ({"needs": "ears"}, "needs 'ears'"),
        ({"source": "web"}, "comes from 'web'"),
        ({"id": ""}, "text alone"),
        ({"needs": "none"}, "text alone"),
        ({"id": "../../x"}, "leads out"),
        ({"prompt": "x" * 100_001}, "longer than 100,000"),
    ],
)
def test_a_row_that_is_none_is_told(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(OmniError, match=told):
        replace(ROWS[0], **change)
    write_tasks(make_tasks(header(), ROWS), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    rows = table.to_pylist()
    rows[2] |= {**change, "options": list(change.get("options", rows[2]["options"]))}
    if "options" in change:
        rows[2]["answer"] = "right000" if change.get("answer") is None else change["answer"]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "t.parquet")
    with pytest.raises(OmniError) as error:
        read_tasks(tmp_path / "t.parquet")
    assert "row 2" in str(error.value)


def _damaged(tmp_path: Path, what: str) -> Path:
    path = tmp_path / "t.parquet"
    write_tasks(make_tasks(header(), ROWS), path)
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[b"nanochat-omni-tasks"])
    if what == "header":
        table = table.replace_schema_metadata({})
    elif what == "schema":
        meta["schema"] = 99
    elif what == "role":
        meta["role"] = "both"
    elif what == "column":
        table = table.drop_columns(["needs"])
    elif what == "type":
        table = table.set_column(0, "row", pa.array([str(i) for i in range(6)]))
    elif what == "order":
        table = table.take([1, 0, 2, 3, 4, 5])
    elif what == "half":
        table = table.slice(3)
    elif what == "empty":
        table = table.slice(0, 0)
    elif what == "null":
        table = table.set_column(5, "answer", pa.array([None, *"abcde"]))
    if what in ("schema", "role"):
        table = table.replace_schema_metadata({"nanochat-omni-tasks": json.dumps(meta)})
    pq.write_table(table, path)
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    if what == "gone":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("header", "no table of tasks"),
        ("schema", "tasks schema 99"),
        ("role", "`role`"),
        ("column", "lacks columns needs"),
        ("type", "column row is string"),
        ("order", "out of order"),
        ("half", "out of order"),
        ("empty", "without a row"),
        ("null", "column answer"),
        ("cut", "can't be read"),
        ("gone", "can't be read"),
    ],
)
def test_a_damaged_table_is_one_line(what: str, told: str, tmp_path: Path) -> None:
    path = _damaged(tmp_path, what)
    with pytest.raises(OmniError) as error:
        read_tasks(path)
    assert told in error.value.what
    assert str(path) in str(error.value)


def test_a_table_holds_no_row_twice_and_at_least_one() -> None:
    with pytest.raises(OmniError, match="twice"):
        make_tasks(header(), [ROWS[0], ROWS[0]])
    with pytest.raises(OmniError, match="without a row"):
        make_tasks(header(), [])
