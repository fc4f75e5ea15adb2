"""What is counted of four-option questions, by hand and against scipy; whom a control lets be heard.

.venv/bin/python -m pytest tests/omni/evaluation/test_choice_figures.py
"""

from collections import Counter

import numpy as np
import pytest
from choices_kit import by_id, questions
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from training_kit import speech

from omni.evaluation.choice_controls import noise_like, partners, spread_of, without_content
from omni.evaluation.choice_figures import (
    N,
    Scores,
    choice_figures,
    chosen_letters,
    draw_rotations,
    right_letters,
    right_texts,
)
from omni.evaluation.intervals import mcnemar, wilson
from omni.formats.tasks import LETTERS, Task, question

SAMPLES = speech(24)
TASKS = questions(SAMPLES)
KEYS = np.array([task.key for task in TASKS])


def logits_of(said: np.ndarray) -> np.ndarray:
    """(n, 4, 4) where these letters, (n, 4) by rotation, are the largest."""
    return np.eye(4)[said]


def right_everywhere() -> np.ndarray:
    return np.array([[LETTERS.index(question(t, r).key) for r in range(N)] for t in TASKS])


@given(st.data())
def test_what_is_right_is_what_the_question_says(data: st.DataObject) -> None:
    """The key's letter, by rotation, is `question`'s."""
    draw = st.lists(st.integers(0, 3), min_size=4, max_size=4)
    said = np.array(data.draw(st.lists(draw, min_size=len(TASKS), max_size=len(TASKS))))
    expected = [
        [LETTERS[said[i, r]] == question(t, r).key for r in range(4)] for i, t in enumerate(TASKS)
    ]
    assert right_letters(logits_of(said), KEYS).tolist() == expected


def test_figures_by_hand() -> None:
    """24 questions: 12 right in all rotations, 6 in one only, 6 never; the control's 3 are of the 12."""
    said = right_everywhere()
    said[12:18, 1:] = (said[12:18, 1:] + 1) % 4
    said[18:] = (said[18:] + 2) % 4
    control = (right_everywhere() + 1) % 4
    control[:3] = right_everywhere()[:3]
    scores = Scores({"right": logits_of(said), "blind": logits_of(control)}, {})
    got = choice_figures(TASKS, scores, {"blind": np.ones(24, bool)})["all"]
    assert got["accuracy"] == pytest.approx((12 + 6 / 4) / 24)
    assert got["strict"] == 0.5
    low, high = binomtest(27, 48).proportion_ci(method="wilson")
    assert got["interval"][0] < low < high < got["interval"][1], "24 questions, not 48"
    assert got["unanswered"] == 0
    drawn = draw_rotations(TASKS)
    mine = [i < 12 or (i < 18 and drawn[i] == 0) for i in range(24)]
    only = sum(mine) - 3
    assert got["controls"]["blind"]["accuracy"] == 3 / 24
    assert got["controls"]["blind"]["mcnemar_p"] == pytest.approx(binomtest(0, only).pvalue)


def test_wilson_and_mcnemar_are_scipy_s() -> None:
    for right, n in ((0, 7), (3, 7), (7, 7), (80, 200), (199, 200)):
        ours, theirs = wilson(right, n), binomtest(right, n).proportion_ci(method="wilson")
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    for one, other in ((0, 0), (1, 0), (5, 5), (23, 17), (0, 30)):
        expected = binomtest(one, one + other).pvalue if one + other else 1.0
        assert mcnemar(one, other) == pytest.approx(expected)
    assert wilson(80, 200) == pytest.approx((0.335, 0.469), abs=5e-4)
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)


@given(st.integers(1, 60), st.integers(0, 10**6))
def test_the_drawn_rotations_deal_the_keys(n: int, seed: int) -> None:
    """To each letter equally often, within one, wherever the table has them; of any order of it."""
    rng = np.random.default_rng(seed)
    tasks = [questions(SAMPLES, int(rng.integers(4)))[i % 24] for i in range(n)]
    drawn = draw_rotations(tasks)
    letters = Counter((task.key + int(r)) % 4 for task, r in zip(tasks, drawn, strict=True))
    assert max(letters.values()) - min(letters[k] for k in range(4)) <= 1
    if len(set(tasks)) == n:
        assert draw_rotations(tasks[::-1]).tolist() == drawn[::-1].tolist()


def test_no_two_habits_differ() -> None:
    """Always A against always B, of a table whose key is always A: nothing is shown."""
    tasks = questions(SAMPLES, 0)
    shape = (len(tasks), 4)
    letters = {"right": logits_of(np.zeros(shape, int)), "noise": logits_of(np.ones(shape, int))}
    got = choice_figures(tasks, Scores(letters, {}), {"noise": np.ones(len(tasks), bool)})
    assert got["all"]["controls"]["noise"]["mcnemar_p"] == 1.0
    assert got["all"]["accuracy"] == got["all"]["controls"]["noise"]["accuracy"] == 0.25
    assert "24/0/0/0" in got["alerts"][0]


def test_no_answer_is_wrong_and_a_tie_no_sign_of_knowledge() -> None:
    nan = np.full((2, 4), np.nan)
    assert chosen_letters(nan).tolist() == [-1, -1]
    assert chosen_letters(np.array([[1.0, np.inf, 0, 0], [2, 2, 1, 0]])).tolist() == [-1, 0]
    keys = np.array([0, 1])
    assert right_texts(np.zeros((2, 4)), keys).tolist() == [False, False]
    assert right_texts(np.array([[-1.0, -2, -3, -4], [-1, -1, -3, -4]]), keys).tolist() == [
        True,
        False,
    ]
    assert right_texts(np.array([[-1.0, -2, -3, np.nan], [-np.inf] * 4]), keys).tolist() == [
        False,
        False,
    ]


def test_the_correction_takes_a_habit_away() -> None:
    """Two more for A everywhere, with content or without: corrected, all are right."""
    right = logits_of(right_everywhere()) + np.array([2.0, 0, 0, 0])
    prior = np.zeros_like(right) + np.array([2.0, 0, 0, 0])
    got = choice_figures(TASKS, Scores({"right": right, "prior": prior}, {}), {})["all"]
    assert (got["accuracy"], got["corrected"]) == (0.25, 1.0)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_who_is_heard_instead_has_another_answer(n: int, seed: int) -> None:
    """And is there whenever anybody of that kind has; nearest in length of those."""
    samples = speech(n, seed)
    tasks, known = questions(samples), by_id(samples)
    answers = {(task.kind, task.id): task.answer for task in tasks}
    for task, other in zip(tasks, partners(tasks, tasks, known), strict=True):
        fit = [
            key for kind, key in answers
            if kind == task.kind and answers[kind, key] != task.answer
            and task.answer not in known[key].meta["text_norm"].split()
        ]  # fmt: skip
        assert bool(other) == bool(fit)
        if other:
            assert other in fit
            own = known[task.id].features.shape[0]
            apart = {key: abs(known[key].features.shape[0] - own) for key in fit}
            assert apart[other] == min(apart.values())


@given(st.integers(2, 30), st.integers(0, 1000))
def test_of_what_no_transcript_tells_another_answer_is_one_that_was_given(
    n: int, seed: int
) -> None:
    """A voice: never the same utterance, nor one of the same pace, even where it is asked about twice."""
    rng = np.random.default_rng(seed)
    samples = speech(n, seed)
    paces = ["slow", "fast", "normal", "even"]
    own = {s.meta["id"]: paces[int(rng.integers(3))] for s in samples}
    tasks = [
        Task(key, "x", "voice/pace", prompt, pace, tuple(paces), "voice", "template", "CC0-1.0")
        for key, pace in own.items()
        for prompt in ("How fast?", "At what pace?")
    ]
    for task, other in zip(tasks, partners(tasks, tasks, by_id(samples)), strict=True):
        assert bool(other) == (len({*own.values()}) > 1)
        if other:
            assert own[other] != own[task.id]


def test_noise_has_the_data_s_own_spread_and_is_drawn_by_id() -> None:
    spread = spread_of(SAMPLES)
    stacked = np.concatenate([s.features for s in SAMPLES]).astype(np.float64)
    assert spread.mean[0] == pytest.approx(stacked.mean(0))
    assert spread.deviation[0] == pytest.approx(stacked.std(0))
    one, two = noise_like(SAMPLES[0], spread), noise_like(SAMPLES[1], spread)
    assert one.dtype == SAMPLES[0].features.dtype
    assert one.shape == SAMPLES[0].features.shape
    assert np.array_equal(one, noise_like(SAMPLES[0], spread))
    assert not np.array_equal(one[:8], two[:8])
    many = np.concatenate([noise_like(s, spread) for s in SAMPLES]).astype(np.float64)
    assert np.abs(many.mean(0) - spread.mean[0]).max() < 0.3
    still = without_content(SAMPLES[0], spread)
    assert (still == still[:1]).all()
    assert still.shape == SAMPLES[0].features.shape


def test_several_layers_keep_their_own_spread() -> None:
    features = np.stack([SAMPLES[0].features, 3 * SAMPLES[0].features])  # (L, T, d)
    sample = type(SAMPLES[0])("a", SAMPLES[0].meta, features)
    spread = spread_of([sample])
    assert spread.mean.shape == (2, 1, 16)
    assert noise_like(sample, spread).shape == features.shape
    assert without_content(sample, spread).shape == features.shape
