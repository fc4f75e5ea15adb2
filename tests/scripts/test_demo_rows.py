"""Rows of the demo LM: only answers are learned, turns lie as training and evaluation lay them, and what
judges never trains.

.venv/bin/python -m pytest tests/scripts/test_demo_rows.py
"""

import random
import re
import sys
from collections.abc import Iterator

import pytest
import torch
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from demo_measure import choice_accuracy, exact, row_of
from demo_questions import (
    HELD_OUT,
    LETTERED,
    OPEN,
    PHASES,
    AnswerRows,
    grammar_sentences,
    held_out_sentences,
)
from demo_rows import RepeatRows, Row, Turn, garbled, lay_out, pad, stretched

from omni.bridge.prompt import as_soft, build_batch
from omni.bridge.turns import Template
from omni.formats.tasks import LETTERS, Task, question
from omni.nanochat import NanoChatConfig, random_init
from omni.nanochat.tokenizer import Tokenizer
from tasks.wordings import CONTENT, NOTHING, REPEAT

DOCUMENTS = [
    "It was a truth that nobody in the house would hear of again, and they said so.",
    "In the morning she came down to the river and told him what she had heard there.",
] * 3
HELD = [
    text.replace('"{word}"', "\0")
    for kinds in (CONTENT, NOTHING, REPEAT)
    for kind in kinds.values()
    for text in kind.held
]
TRAIN = {t for kinds in (CONTENT, NOTHING, REPEAT) for kind in kinds.values() for t in kind.train}


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return Tokenizer.load(ROOT / "omni" / "nanochat" / "demo")


@pytest.fixture(scope="module")
def rows(tok: Tokenizer) -> list[Row]:
    """Rows of both phases."""
    made = AnswerRows(tok, grammar_sentences(300, 1, set()), DOCUMENTS, 0, garble=0.3)
    return [made.row(shares) for shares in PHASES.values() for _ in range(300)]


def pieces(tok: Tokenizer, row: Row) -> Iterator[tuple[str, str]]:
    """(user, assistant) of each turn of a row, as text."""
    text = tok.decode(row.ids)
    found = re.findall(
        r"<\|user_start\|>(.*?)<\|user_end\|><\|assistant_start\|>(.*?)<\|assistant_end\|>",
        text,
        re.S,
    )
    whole = "".join(
        f"<|user_start|>{u}<|user_end|><|assistant_start|>{a}<|assistant_end|>" for u, a in found
    )
    assert text == "<|bos|>" + whole
    yield from found


def test_a_row_of_one_turn_lies_as_the_bridge_lays_it(tok: Tokenizer) -> None:
    heard = tok.encode("set the basket")
    row = lay_out(tok, heard, [Turn("What is the last word?", "basket")])
    lm = random_init(NanoChatConfig(64, tok.vocab_size, 1, 1, 1, 32, "L"))
    template = Template("sft", " What is the last word?")
    batch = build_batch(lm, tok, as_soft(lm, [heard]), ["basket"], template)
    ids, targets = pad([row])
    assert torch.equal(batch.targets[0, : ids.shape[1]], targets[0])
    assert torch.equal(batch.rows[0, : ids.shape[1]], lm.embed(ids)[0][0])


def test_later_turns_open_with_their_prompt(tok: Tokenizer) -> None:
    special = tok.special
    row = lay_out(tok, [5, 6], [Turn("Repeat that.", "yes"), Turn("The last word?", "no")])
    said = [
        *[special("bos"), special("user_start"), 5, 6, *tok.encode(" Repeat that.")],
        *[special("user_end"), special("assistant_start"), *tok.encode("yes")],
        *[special("assistant_end"), special("user_start"), *tok.encode("The last word?")],
        *[special("user_end"), special("assistant_start"), *tok.encode("no")],
        special("assistant_end"),
    ]
    assert row.ids == said
    bare = lay_out(tok, [5, 6], [Turn("", "yes")])
    assert bare.ids[:5] == [special("bos"), special("user_start"), 5, 6, special("user_end")]


def test_answers_and_their_ends_alone_are_learned(tok: Tokenizer, rows: list[Row]) -> None:
    start, end = tok.special("assistant_start"), tok.special("assistant_end")
    for row in rows:
        inside = False
        for one, target in zip(row.ids, row.targets, strict=True):
            assert target == (one if inside else -1)
            inside = (inside and one != end) or one == start
    ids, targets = pad(rows[:5])
    assert ids.shape == targets.shape
    assert [t for t in targets[0].tolist() if t != -1] == [t for t in rows[0].targets if t != -1]


def test_a_held_out_wording_is_never_asked(tok: Tokenizer, rows: list[Row]) -> None:
    prompts = {
        re.sub(r'"[a-z]+"', "\0", user).partition("\n")[0]
        for row in rows
        for user, _ in pieces(tok, row)
    }
    asked_in_training = [t.replace('"{word}"', "\0") for t in TRAIN]
    for prompt in prompts:
        held = [text for text in HELD if prompt.endswith(text)]
        # "Which word was said last?" may end in a shorter one that is trained.
        longer = [t for t in asked_in_training if prompt.endswith(t)]
        assert not held or max(map(len, longer), default=0) > max(map(len, held)), prompt


def test_no_held_out_sentence_is_said(tok: Tokenizer) -> None:
    held = held_out_sentences(ROOT / "manifests")
    assert len(held) >= 80
    assert "demo-heldout" in HELD_OUT[0]
    told = [line for path in (ROOT / "manifests").rglob("demo-heldout*/**/*.trans.txt")
        for line in path.read_text().splitlines()]  # fmt: skip
    assert {line.split(" ", 1)[1].lower() for line in told} <= held
    some = set(grammar_sentences(50, 3, set()))
    made = grammar_sentences(2000, 3, some)
    assert len(set(made)) == 2000
    assert not some & set(made)


@pytest.mark.parametrize("kind", sorted({*LETTERED, *OPEN}))
def test_the_answer_to_a_question_is_the_right_one(tok: Tokenizer, kind: str) -> None:
    made = AnswerRows(tok, grammar_sentences(300, 1, set()), DOCUMENTS, 1)
    judges = {
        "first": lambda words, asked, answer: answer == words[0],
        "last": lambda words, asked, answer: answer == words[-1],
        "after": lambda words, asked, answer: f" {asked} {answer} " in f" {' '.join(words)} ",
        "before": lambda words, asked, answer: f" {answer} {asked} " in f" {' '.join(words)} ",
        "heard": lambda words, asked, answer: (asked in words) == (answer == "yes"),
        "count": lambda words, asked, answer: True,
        "sentence": lambda words, asked, answer: f" {answer} " in f" {' '.join(words)} ",
    }
    right = judges.get(kind, lambda words, asked, answer: answer in words)
    seen = 0
    for _ in range(300):
        words = made.words()
        turn = made.question(kind, words, kind in LETTERED)
        if turn is None:
            continue
        seen += 1
        asked = re.search(r'"([a-z]+)"', turn.prompt)
        answer = turn.answer
        if kind in LETTERED:
            lines = turn.prompt.splitlines()[1:]
            task = Task("u", "s", "k", "P?", lines[0][2:-2],
                tuple(line[2:-2] for line in lines), "words", "template", "")  # fmt: skip
            assert question(task).prompt.splitlines()[1:] == lines
            answer = task.options[LETTERS.index(answer)]
            others = [o for o in task.options if o != answer]
            if kind in ("heard-which", "sentence", "number", "colour", "place"):
                assert not any(f" {o} " in f" {' '.join(words)} " for o in others)
        assert right(words, asked and asked[1], answer)
    assert seen > 50


def test_letters_are_the_key_equally_often(rows: list[Row], tok: Tokenizer) -> None:
    keys = [answer for row in rows for _, answer in pieces(tok, row) if answer in LETTERS]
    assert len(keys) > 400
    assert all(0.2 < keys.count(letter) / len(keys) < 0.3 for letter in LETTERS)


def test_rows_of_one_turn_are_as_many_as_told(tok: Tokenizer) -> None:
    made = AnswerRows(tok, grammar_sentences(300, 1, set()), DOCUMENTS, 2)
    shares = PHASES["hear"]._replace(
        repeat=0.0, opened=0.5, pointed=0.0, shared=0.0, lettered=0.5, single=0.5
    )
    turns = [len(list(pieces(tok, made.row(shares)))) for _ in range(400)]
    assert 0.4 < turns.count(1) / len(turns) < 0.6
    assert max(turns) > 3


def test_batches_are_of_like_length_and_the_same_each_time(tok: Tokenizer) -> None:
    def some() -> list[list[Row]]:
        made = AnswerRows(tok, grammar_sentences(300, 1, set()), DOCUMENTS, 2, garble=0.5)
        return [made.batch(PHASES["hear"]) for _ in range(12)]

    batches = some()
    assert batches == some()
    filled = sum(len(row.ids) for batch in batches for row in batch)
    assert filled > 0.8 * sum(len(b) * max(len(row.ids) for row in b) for b in batches)


def test_what_is_misheard_keeps_its_answer(tok: Tokenizer) -> None:
    made = RepeatRows(tok, DOCUMENTS, 0, garble=1.0)
    others = [row for row in (made.repeat(12) for _ in range(50)) if _asked(tok, row) != _said(row)]
    assert len(others) > 20
    ids = list(range(50))
    assert garbled(ids, 0.0, random.Random(0), 99) == ids
    assert garbled(ids, 0.3, random.Random(0), 99) != ids
    longer = stretched(ids, random.Random(0), 99)
    assert len(longer) > 60
    assert list(dict.fromkeys(i for i in longer if i != 99)) == ids


def test_measuring_finds_an_lm_that_always_says_a(tok: Tokenizer) -> None:
    task = Task("u", "s", "content/first", "The first word?", "set",
        ("set", "hold", "find", "wash"), "words", "template", "")  # fmt: skip
    lm = random_init(NanoChatConfig(64, tok.vocab_size, 1, 1, 1, 32, "L"))
    with torch.no_grad():
        lm.lm_head.weight.zero_()
    # All logits are equal: the first of the letters in all four rotations.
    assert choice_accuracy(lm, tok, [task], {"u": "set the basket"}) == 0.25
    row = row_of(tok, task, "set the basket", rotation=1)
    assert [t for t in row.targets if t != -1] == [tok.encode("B")[0], tok.special("assistant_end")]
    assert exact(lm, [row]) == [False]


def _asked(tok: Tokenizer, row: Row) -> list[int]:
    end = row.ids.index(tok.special("user_end"))
    prompt = tok.encode(" Repeat that.")
    heard = row.ids[2:end]
    return heard[: -len(prompt)] if heard[-len(prompt) :] == prompt else heard


def _said(row: Row) -> list[int]:
    return [t for t in row.targets if t != -1][:-1]
