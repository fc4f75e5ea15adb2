"""Chats from JSONL, as nanochat stores them; anything else is told with its line.

.venv/bin/python -m pytest tests/tasks/test_replay.py
"""

import json
from pathlib import Path
from typing import Any

import pytest

from omni.errors import OmniError
from tasks.replay import Exchange, read_chats

USER, ASSISTANT = (
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Good day."},
)


def written(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


def test_the_first_exchange_of_each_is_taken_once(tmp_path: Path) -> None:
    more = [USER, ASSISTANT, {"role": "user", "content": "And?"}, ASSISTANT]
    system = [{"role": "system", "content": "Be kind."}, USER, ASSISTANT]
    path = written(tmp_path, [USER, ASSISTANT], "", {"messages": more}, system)
    chats, record = read_chats(path)
    assert chats == [Exchange("Hello.", "Good day."), Exchange("Be kind.\n\nHello.", "Good day.")]
    assert record["n"] == 2
    assert record["name"] == "chats.jsonl"


@pytest.mark.parametrize(
    "line",
    [
        [ASSISTANT, USER],
        [USER],
        [],
        {"messages": "no"},
        {"text": "x"},
        [{"role": "user", "content": 3}, ASSISTANT],
        [{"role": "user", "content": " "}, ASSISTANT],
        "{half",
        "[" * 100_000,
        "3",
        [{"role": "user"}, ASSISTANT],
    ],
)
def test_what_is_no_conversation_is_told_with_its_line(line: Any, tmp_path: Path) -> None:
    path = written(tmp_path, [USER, ASSISTANT], line)
    with pytest.raises(OmniError) as error:
        read_chats(path)
    assert error.value.where.endswith("line 2")


def test_no_chats_at_all(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="no conversation in it"):
        read_chats(written(tmp_path, ""))
    with pytest.raises(OmniError, match="can't be read"):
        read_chats(tmp_path / "none.jsonl")
