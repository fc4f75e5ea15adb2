"""A transcript, a name or a message can't speak to the terminal."""

import argparse
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import eval as cli_eval
from cli._common import run
from omni.errors import OmniError, printable
from omni.evaluation.figures import Example, Figures, Judged

HOSTILE = "\x1b]0;owned\x07 \x1b[2J\u202egnp.exe \x9b31m\r\nfine"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)


@pytest.mark.parametrize("text", ["", "plain", "l'homme là", "今天 नमस्ते", "é e\u0301", "a 😀 b"])
def test_what_can_be_seen_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[0m", "\\x1b[0m"), ("a\nb", "a\\nb"), ("\u202e", "\\u202e"), ("\udcff", "\\xff")],
)
def test_the_rest_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_eval_shows_a_transcript_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    example = Example(id="a", reference=HOSTILE, hypothesis=HOSTILE, wer=1.0, cascade=HOSTILE)
    figures = Figures(
        n=1, n_tokens=1, token_accuracy=0.5, ce=1.0, n_decoded=1, intervals={}, examples=[example]
    )
    cli_eval._print("dev\x1b[1m", Judged(**figures, verdict="none"))
    out = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07" in out
    assert all(c == "\n" or c.isprintable() for c in out)
    assert json.loads(json.dumps(example))["hypothesis"] == HOSTILE


def test_an_error_that_quotes_a_hostile_name_is_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(args: argparse.Namespace) -> int:
        raise OmniError("no such file", f"\x1b[31m{args.file}")

    def parser() -> argparse.ArgumentParser:
        made = argparse.ArgumentParser()
        made.add_argument("file")
        return made

    assert run(parser, command, ["\x07x"]) == 1
    assert capsys.readouterr().err == "error: no such file (\\x1b[31m\\x07x)\n"
