"""Who transcribes instead of answering, and whether a wording matters.

.venv/bin/python -m pytest tests/omni/evaluation/test_obedience.py
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from choices_kit import by_id, questions, small_projector
from hypothesis import given
from hypothesis import strategies as st
from training_kit import WORDS, chat_tokenizer, speech, tiny_lm

from omni.bridge.turns import Turn, choose_template
from omni.evaluation import obedience as ob
from omni.evaluation.obedience import obedience, transcribes, wordings
from omni.formats.tasks import Task

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})
SAMPLES = speech(12)
SAID = "set the silver book by the river at two"


@pytest.mark.parametrize(
    ("answer", "wanted", "expected"),
    [
        (SAID, "silver", True),
        ("Set the silver book by the river, at two!", "silver", True),
        ("set the yellow book by a river at ten", "silver", True),  # WER 33 %
        ("You said: set the silver book by the river.", "silver", True),
        ("the silver book by", "silver", False),  # four words of nine
        ("the silver book by the", "silver", True),  # five
        ("two at river the by book silver the set", "set", False),  # all, in no order
        ("silver", "silver", False),
        ("silver", "set", False),
        ("B", "silver", False),
        ("", "silver", False),
        (SAID, SAID, False),  # it was asked to repeat
        ("SET THE SILVER BOOK BY THE RIVER AT 2", SAID.upper(), False),
    ],
)
def test_what_transcribes(answer: str, wanted: str, expected: bool) -> None:
    assert transcribes(answer, SAID, wanted) == expected


def test_short_ones_and_other_scripts() -> None:
    assert transcribes("red", "red", "yes")
    assert not transcribes("the word is red", "red", "red")
    assert not transcribes("the red one", "red", "yes")  # one word alone is no transcript
    assert transcribes("red door", "red door", "red")
    assert not transcribes("red", "red door", "door")
    assert transcribes("今天天气很好", "今天天气很好我们去", "好", "zh")
    assert not transcribes("天气", "今天天气很好我们去", "天气", "zh")
    assert not transcribes("anything at all", "", "Nothing is said.")


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=9), st.data())
def test_every_answer_with_a_small_wer_transcribes(said: list[str], data: st.DataObject) -> None:
    """Fewer wrong words than half of them, whichever; and a prefix of half does not."""
    n_wrong = data.draw(st.integers(0, (len(said) - 1) // 2))
    if len(said) - n_wrong < 2:
        return
    answer = list(said)
    for at in data.draw(st.permutations(range(len(said))))[:n_wrong]:
        answer[at] = "zebra"
    assert transcribes(" ".join(answer), " ".join(said), "quite another thing")
    assert not transcribes(" ".join(said[: len(said) // 2]), " ".join(said), "quite another thing")


def answer_with(monkeypatch: pytest.MonkeyPatch, *by: str) -> list[Turn]:
    """Decoding that says these in turn; returns what was asked."""
    asked: list[Turn] = []

    def decode(*args: object, rows: Sequence[Sequence[Turn]], **_: object) -> list[list[int]]:
        asked.extend(row[0] for row in rows)
        return [TOK.encode(by[i % len(by)]) for i in range(len(rows))]

    monkeypatch.setattr(ob, "decode", decode)
    return asked


def open_ones(prompt: str = "What came last?") -> list[Task]:
    return [
        replace(task, options=(), prompt=prompt, answer=s.meta["text_norm"].split()[-1])
        for task, s in zip(questions(SAMPLES), SAMPLES, strict=True)
    ]


def test_letters_and_right_words_obey(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(sequence_len=256)
    asked = answer_with(monkeypatch, "B")
    got = obedience(lm, TOK, small_projector(lm), questions(SAMPLES), by_id(SAMPLES), SFT)
    assert got is not None
    assert (got["n"], got["transcribes"], got["options_letter"], got["open_n"]) == (12, 0.0, 1.0, 0)
    assert "open_right" not in got
    assert all(t.audio and t.prompt.startswith(" What came first?\n- ") for t in asked)


def test_who_repeats_everything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open questions and those with options; "repeat that" tells nothing and is passed over."""
    lm = tiny_lm(sequence_len=256)
    several = [s for s in SAMPLES if len(s.meta["text_norm"].split()) > 1]
    text = several[0].meta["text_norm"]
    tasks = [t for t in [*questions(SAMPLES), *open_ones()] if t.id == several[0].meta["id"]]
    repeat = replace(tasks[-1], kind="repeat", prompt="Repeat that.", answer=text)
    assert len(tasks) == 2
    answer_with(monkeypatch, text.upper() + ".")
    got = obedience(lm, TOK, small_projector(lm), [*tasks, repeat], by_id(SAMPLES), SFT)
    assert got is not None
    assert (got["n"], got["transcribes"], got["open_n"], got["options_n"]) == (2, 1.0, 1, 1)
    assert (got["open_right"], got["options_letter"]) == (0.0, 0.0)
    assert [e["said"] for e in got["examples"]] == [text, text]
    assert obedience(lm, TOK, small_projector(lm), [repeat], by_id(SAMPLES), SFT) is None


def test_a_limit_and_rows_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(sequence_len=16)
    tasks = open_ones()
    tasks[0] = replace(tasks[0], prompt="Why? " * 60)
    asked = answer_with(monkeypatch, "no")
    got = obedience(lm, TOK, small_projector(lm), tasks, by_id(SAMPLES), SFT, limit=4)
    assert got is not None
    assert got["n"] == 4
    assert len(asked) == 3, "what leaves no room for an answer is not asked, and counts"


def test_it_decodes_what_it_is_asked() -> None:
    """Two prompts draw two answers from the same audio, whatever the batch."""
    lm = tiny_lm(sequence_len=256)
    tasks = sorted(open_ones(), key=lambda t: (by_id(SAMPLES)[t.id].features.shape[0], t))
    args = (lm, TOK, small_projector(lm), tasks, by_id(SAMPLES), SFT)
    answers = ob._answers(*args, 5, 50.0)
    assert answers == ob._answers(*args, 1, 50.0)
    other = [replace(task, prompt="Repeat that.") for task in tasks]
    assert answers != ob._answers(lm, TOK, small_projector(lm), other, by_id(SAMPLES), SFT, 5, 50.0)


def worded(kinds: dict[str, list[str]]) -> list[Task]:
    """Questions of these kinds, in these wordings by turns."""
    found = []
    for kind, prompts in kinds.items():
        for i, task in enumerate(questions(SAMPLES)[:6]):
            found.append(
                replace(task, kind=kind, prompt=prompts[i % len(prompts)].format(word=f"w{i}"))
            )
    return found


def test_each_question_is_put_in_every_wording_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps the word that it asks about. One wording has all right, one a half: spread 50 points
    there, none in the other kind."""
    tasks = worded({
        "content/after": ['After "{word}"?', 'What follows "{word}"?', 'Next to "{word}"?'],
        "content/first": ["First?", "How does it begin?"],
        "content/last": ["Last?"],
    })  # fmt: skip
    put: list[Task] = []

    def score(*args: object, **_: object) -> dict[str, object]:
        put.extend(args[3])
        half = {t: (i % 6) < 3 for i, t in enumerate(sorted(set(put)))}
        return {
            "questions": [
                {
                    "id": t.id, "kind": t.kind, "prompt": t.prompt, "options": list(t.options),
                    "right": [not t.prompt.startswith("What follows") or t.id < "ann-0003"] * 4,
                }
                for t in half
            ]
        }  # fmt: skip

    monkeypatch.setattr(ob, "score_choices", score)
    lm = tiny_lm()
    got = wordings(lm, TOK, small_projector(lm), tasks, by_id(SAMPLES), SFT)
    assert got is not None
    after = {t.prompt for t in put if t.kind == "content/after"}
    assert after == {f'{w} "w{i}"?' for w in ("After", "What follows", "Next to") for i in range(6)}
    assert len(put) == 6 * 3 + 6 * 2, "a kind with one wording has nothing to compare"
    assert got["kinds"]["content/after"] == {
        'After "…"?': 1.0, 'Next to "…"?': 1.0, 'What follows "…"?': 0.5,
    }  # fmt: skip
    assert set(got["kinds"]["content/first"].values()) == {1.0}
    assert (got["n"], got["best"], got["worst"]) == (12, 1.0, 0.75)
    assert got["spread"] == pytest.approx(0.25)


def test_one_wording_is_no_comparison() -> None:
    lm = tiny_lm()
    assert wordings(lm, TOK, small_projector(lm), questions(SAMPLES), by_id(SAMPLES), SFT) is None


def test_a_model_is_asked_and_the_same_twice() -> None:
    lm = tiny_lm(sequence_len=256)
    tasks = worded({"content/first": ["First?", "How does it begin?"]})
    one = wordings(lm, TOK, small_projector(lm), tasks, by_id(SAMPLES), SFT, limit=4)
    assert one == wordings(lm, TOK, small_projector(lm), tasks, by_id(SAMPLES), SFT, 3, limit=4)
    assert one is not None
    assert one["n"] == 4
    assert 0 < one["best"] < 1, "it answers some"
