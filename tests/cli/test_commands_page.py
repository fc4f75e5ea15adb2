"""docs/commands.md is what the commands print.

.venv/bin/python -m pytest tests/cli/test_commands_page.py
"""

import os

import pytest
from command_kit import commands
from places import ROOT

from scripts import write_commands

PAGE = ROOT / "docs" / "commands.md"


def test_the_page_is_what_the_commands_print() -> None:
    assert PAGE.read_text(encoding="utf-8") == write_commands.page(), (
        "run python -m scripts.write_commands"
    )


@pytest.mark.parametrize("columns", [None, "40", "200"])
def test_the_page_does_not_follow_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert write_commands.main(["--check"]) == 0
    assert os.environ.get("COLUMNS") == columns


def test_every_command_has_its_part() -> None:
    heads = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "## "]
    assert heads == [f"## {command}" for command in commands()]
