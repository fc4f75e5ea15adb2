"""Every question has one right answer by the transcript, and three that are wrong.

The answers are found again here from the words alone.

.venv/bin/python -m pytest tests/tasks/test_questions.py
"""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks_kit import heard

from tasks import nothing, voice
from tasks.content import Draft, content_kinds, guessable
from tasks.corpus import Corpus, part_of, sound
from tasks.dice import Dice
from tasks.lexicon import COUNTS
from tasks.repeat import repeat_kinds
from tasks.sources import Heard

SOURCES = heard(200, noise=4)
SPOKEN = [h for h in SOURCES.heard if h.text]
CORPUS = Corpus(SOURCES.heard)
KINDS = content_kinds("train")


def right(kind: str, draft: Draft, words: list[str]) -> bool:
    """Whether an answer is the transcript's."""
    text, asked, answer = " ".join(words), draft.word, draft.answer
    at = words.index(asked) if asked in words else -1
    name = kind.partition("/")[2]
    if name == "heard":
        return (asked in words) == (answer == "yes")
    if name == "heard-which":
        return answer in words
    if name in ("after", "before"):
        step = 1 if name == "after" else -1
        return words.count(asked) == 1 and words[at + step] == answer and at + step >= 0
    if name in ("first", "last"):
        return answer == words[0 if name == "first" else -1]
    if name == "count":
        return answer == COUNTS[len(words)]
    if name == "sentence":
        return f" {answer} " in f" {text} "
    return [word for word in words if part_of(word) == name] == [answer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [False, True])
@given(data=st.data())
def test_the_answer_is_right_and_the_others_are_wrong(
    kind: str, options: bool, data: st.DataObject
) -> None:
    wordings, make, has = KINDS[kind]
    if has is not None and options != has:
        return
    one = data.draw(st.sampled_from(SPOKEN))
    draft = make(one, CORPUS, Dice(data.draw(st.integers(0, 10**6))), options)
    if draft is None:
        return
    assert right(kind, draft, one.words)
    assert bool(draft.wrong) == options
    assert len({draft.answer, *draft.wrong}) == (4 if options else 1)
    for wrong in draft.wrong:
        assert not right(kind, draft._replace(answer=wrong), one.words)
    assert ("{word}" in wordings[0]) == bool(draft.word)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_had(kind: str) -> None:
    _, make, has = KINDS[kind]
    drafts = [make(h, CORPUS, Dice(h.id), True if has is None else has) for h in SPOKEN]
    assert sum(draft is not None for draft in drafts) > len(drafts) / 8


def test_yes_and_no_are_as_common() -> None:
    _, make, _ = KINDS["content/heard"]
    answers = Counter(
        draft.answer
        for h in SPOKEN
        for i in range(5)
        if (draft := make(h, CORPUS, Dice(h.id, i), False))
    )
    assert 0.45 < answers["yes"] / answers.total() < 0.55


def test_order_is_asked_with_words_of_the_sentence_in_open_speech_alone() -> None:
    """In a closed grammar the other words of a sentence could be told apart by their place."""
    _, make, _ = KINDS["content/after"]
    fixed = [h for h in SPOKEN if " at " in f"{h.text} "]
    corpus = Corpus(fixed)
    for one in fixed:
        draft = make(one, corpus, Dice(one.id), True)
        if draft is not None and part_of(draft.answer) == "number":
            assert all(part_of(w) == "number" and w not in one.words for w in draft.wrong)
    alone = [Heard("a", "train", "nobody could tell where the letter came from", "", "", "")]
    draft = make(alone[0], Corpus(alone), Dice(1), True)
    assert draft is not None
    assert set(draft.wrong) < set(alone[0].words)


def test_what_sounds_the_same_is_no_wrong_option() -> None:
    assert sound("wood") != sound("word")
    assert sound("knight") == sound("night")
    text = "night knight light might sight bright fight flight height tight"
    corpus = Corpus([Heard("a", "train", text, "", "", "")])
    found = corpus.alike("night", Dice(0), 5)
    assert len(found) == 5
    assert "knight" not in found


def test_an_answer_that_is_always_the_same_can_be_guessed() -> None:
    assert guessable(["ten"] * 6 + ["nine"] * 4)
    assert not guessable(["ten", "nine", "eight"] * 4)
    assert not guessable([])


def test_repeating_has_forms() -> None:
    forms = {kind: answer for kind, (_, answer) in repeat_kinds("train").items()}
    words = ["set", "the", "book", "down"]
    assert forms["repeat"](words) == "set the book down"
    assert forms["repeat/upper"](words) == "SET THE BOOK DOWN"
    assert forms["repeat/first-three"](words) == "set the book"
    assert forms["repeat/backwards"](words) == "down book the set"
    assert forms["repeat/first-three"](words[:3]) == ""
    assert forms["repeat/backwards"](["a"] * 17) == ""


def test_readers_are_told_from_others_of_the_same_sex() -> None:
    readers = voice.Readers(SPOKEN)
    sexes = {f"reader {h.speaker}": h.sex for h in SPOKEN}
    for one in SPOKEN[:40]:
        draft = voice.speaker(one, readers, Dice(one.id))
        assert draft is not None
        assert draft.answer == f"reader {one.speaker}"
        assert {sexes[other] for other in draft.wrong} == {one.sex}
        assert voice.sex(one) == Draft("", {"F": "a woman", "M": "a man"}[one.sex])
    assert voice.sex(Heard("a", "train", "x", "1", "", "")) is None
    assert "voice/speaker" not in voice.voice_kinds("eval")


def test_none_of_these_is_right_where_nothing_is_said_and_wrong_where_a_word_is() -> None:
    for one in SOURCES.heard:
        draft = nothing.which(one, CORPUS, Dice(one.id))
        if draft is None:
            continue
        if one.text:
            assert draft.answer in one.words
            assert nothing.NONE_OF_THESE in draft.wrong
            assert not set(draft.wrong) & set(one.words)
            assert nothing.said(one) is None
        else:
            assert draft.answer == nothing.NONE_OF_THESE
            assert nothing.said(one) == Draft("", nothing.NOTHING_SAID)
        assert len({draft.answer, *draft.wrong}) == 4
