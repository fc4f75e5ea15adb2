"""The LM's own answers: greedy, one by one as in a batch, kept as they come.

.venv/bin/python -m pytest tests/tasks/test_own.py
"""

from pathlib import Path

import pytest
import torch
from training_kit import chat_tokenizer, tiny_lm

import tasks.own
from omni.errors import OmniError
from tasks.own import OwnAnswers

ASKED = [("a b", "Go on."), ("the river", "Go on."), ("three", "Why?"), ("a b", "Why?")]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnAnswers:
    lm, tok = tiny_lm(sequence_len=256), chat_tokenizer()
    monkeypatch.setattr(tasks.own, "load_checkpoint", lambda *_: (lm, tok, {"kind": "sft"}))
    return OwnAnswers("any", torch.device("cpu"), tmp_path / "kept.jsonl")


def test_a_batch_answers_as_each_alone_and_what_is_kept_is_not_asked_again(
    answers: OwnAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = answers(ASKED)
    (tmp_path / "kept.jsonl").unlink()
    assert [answers([pair])[0] for pair in ASKED] == together
    asked: list[str] = []
    monkeypatch.setattr(
        OwnAnswers,
        "_answers",
        lambda self, texts, prompt: asked.extend(texts) or ["new"] * len(texts),
    )
    assert answers([*ASKED, ("more", "Why?")]) == [*together, "new"]
    assert asked == ["more"]


def test_the_half_line_of_a_killed_start_is_made_again(answers: OwnAnswers, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    together = answers(ASKED)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-5])
    assert answers(ASKED) == together
    assert sorted(kept.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_foreign_line_is_told(answers: OwnAnswers, tmp_path: Path) -> None:
    (tmp_path / "kept.jsonl").write_text("nonsense\n")
    with pytest.raises(OmniError, match="no answer that was kept"):
        answers(ASKED)
