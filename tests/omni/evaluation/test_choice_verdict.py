"""What may be called hearing, and what may not.

.venv/bin/python -m pytest tests/omni/evaluation/test_choice_verdict.py
"""

import numpy as np
import pytest
from choices_kit import always_says, by_id, hear_perfectly, questions, small_projector
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.turns import choose_template, letter_ids
from omni.evaluation.choice_figures import ChoiceFigures, GroupFigures, Scores, choice_figures
from omni.evaluation.choices import score_choices
from omni.evaluation.verdict import choice_verdict, shows_hearing

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})


def answers(right: float, control: float, n: int = 100) -> GroupFigures:
    """Of n questions, the leading shares right in all rotations."""
    tasks = [task for _ in range(n) for task in questions(speech(1))]
    keys = (np.zeros((n, 4), int) + tasks[0].key + np.arange(4)) % 4
    said = {
        name: np.where(np.arange(n)[:, None] < round(share * n), keys, (keys + 1) % 4)
        for name, share in (("right", right), ("blind", control), ("noise", 0.0))
    }
    scores = Scores({name: np.eye(4)[letters] for name, letters in said.items()}, {})
    return choice_figures(tasks, scores, {c: np.ones(n, bool) for c in ("blind", "noise")})["all"]


@pytest.mark.parametrize(
    ("right", "control", "said"),
    [
        (0.8, 0.2, "hears: 80.0% right"),
        (0.30, 0.0, "which chance gives too"),
        (0.5, 0.45, "no audio serves as well (45.0%)"),
        (0.5, 0.50, "no audio serves as well (50.0%)"),
        (0.5, 0.60, "no audio serves as well (60.0%)"),
    ],
)
def test_the_best_control_must_lie_below_the_interval(
    right: float, control: float, said: str
) -> None:
    group = answers(right, control)
    assert said in choice_verdict(group)
    assert shows_hearing(group) == said.startswith("hears")
    assert choice_verdict(group).startswith("not shown to hear") != shows_hearing(group)


def test_a_difference_that_may_be_chance_is_no_hearing() -> None:
    """Seven questions of seven against none: outside the interval, p = 2 / 128."""
    group = answers(1.0, 0.0, n=7)
    assert group["controls"]["blind"]["accuracy"] < group["interval"][0]
    assert group["controls"]["blind"]["mcnemar_p"] == pytest.approx(2 / 2**7)
    assert "may be by chance" in choice_verdict(group)
    assert "hears" in choice_verdict(answers(1.0, 0.0, n=8))


def test_without_a_deaf_control_nothing_is_shown() -> None:
    group = answers(1.0, 0.0)
    group["controls"] = {"transcript": group["controls"]["blind"]}
    assert "no control" in choice_verdict(group)


def test_to_read_as_well_as_to_hear_is_no_doubt() -> None:
    """A transcript and a cascade may have everything right."""
    group = answers(0.8, 0.2)
    group["controls"]["transcript"] = {**group["controls"]["blind"], "accuracy": 1.0}
    assert choice_verdict(group) == choice_verdict(answers(0.8, 0.2))


def _scored(lm: object, n: int, letter: int | None = None) -> ChoiceFigures:
    samples = speech(n)
    tasks = questions(samples, letter)
    return score_choices(lm, TOK, small_projector(lm), tasks, by_id(samples), SFT, texts=False)


@pytest.mark.parametrize("keys", [None, 0])
def test_who_ignores_the_audio_is_not_shown_to_hear(
    monkeypatch: pytest.MonkeyPatch, keys: int | None
) -> None:
    """An untrained LM; one that always says A, of a table whose key is always A too."""
    assert "not shown to hear" in choice_verdict(
        _scored(tiny_lm(sequence_len=256), 40, keys)["all"]
    )
    lm = tiny_lm(sequence_len=256)
    always_says(monkeypatch, lm, letter_ids(TOK)[0])
    assert "which chance gives too" in choice_verdict(_scored(lm, 40, keys)["all"])


def test_who_hears_is_shown_to_and_the_table_is_warned_of_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = tiny_lm(sequence_len=256)
    hear_perfectly(monkeypatch, speech(40))
    got = _scored(lm, 40, 0)
    assert choice_verdict(got["all"]).startswith("hears: 100.0% right")
    assert "40/0/0/0" in got["alerts"][0]
