"""What is asked of whom in a pass: each row of the table once, as turns that any rank and worker would
make alike."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks_kit import about, choice, header
from training_kit import chat_tokenizer, speech, tiny_lm, write_split

from omni.bridge.room import make_room
from omni.bridge.turns import Turn, choose_template
from omni.errors import OmniError
from omni.formats.tasks import LETTERS, Task, make_tasks, write_tasks
from omni.nanochat.tokenizer import Tokenizer
from train.asking import Table, make_groups, read_table, turn_of
from train.data import TrainingData, read_sides
from train.passes import BatchRule
from train.sides import choose_sides
from train.stream import START, Position, Stream, StreamSpec

TOK = chat_tokenizer()
TEMPLATE = choose_template({"kind": "sft"})
SAMPLES = speech(40)
TABLE = Table(about(SAMPLES, texts=7), "a table", "0" * 64, turns=2, seed=3, alone=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_split(root, "train-x", SAMPLES)
    write_split(root, "dev-x", speech(6, 5, 500, "bob"), role="eval")
    return root


def data_of(shards: Path, table: Table, stretch: float = 0.0, stack: int = 4) -> TrainingData:
    room = make_room(tiny_lm(), TOK, TEMPLATE, stack, stretch)
    return read_sides(choose_sides([str(shards)]), 0, room, table=table)


def one_pass(
    data: TrainingData, number: int = 0, rank: int = 0, world: int = 1
) -> list[tuple[Turn, ...]]:
    spec = StreamSpec(data.shards, 1, BatchRule(8, 0, 16), rank, world, asked=data.asked)
    rows = []
    for packed in Stream(spec, Position(number, 0)):
        assert not isinstance(packed, OmniError)
        if packed.at.number != number:
            return rows
        assert packed.rows is not None
        heard = [any(turn.audio for turn in row) for row in packed.rows]
        assert heard == [True] * len(packed.keys) + [False] * (len(heard) - len(packed.keys))
        rows += packed.rows
    raise AssertionError("a stream without end ended")


def questions(rows: list[tuple[Turn, ...]]) -> Counter[tuple[str, str]]:
    """By prompt without its options, and answer."""
    turns = [turn for row in rows for turn in row]
    return Counter((turn.prompt.strip().split("\n")[0], turn.answer or "") for turn in turns)


def test_each_row_of_the_table_is_asked_once_a_pass(shards: Path) -> None:
    data = data_of(shards, TABLE)
    assert data.asked is not None
    judged = {one.sample.meta["id"] for one in data.judges}
    assert len(judged) == 2  # one in twenty
    mine = [task for task in TABLE.tasks.rows if task.id not in judged]
    open_ = Counter((t.prompt, t.answer) for t in mine if not t.options)
    for number in (0, 1):
        found = questions(one_pass(data, number))
        closed = Counter({k: n for k, n in found.items() if k[0] == "Which was said?"})
        assert found - closed == open_
        assert closed.total() == sum(bool(t.options) for t in mine)
        assert {answer for _, answer in closed} == set(LETTERS)


def test_passes_differ_in_order_and_ranks_share_one_order(shards: Path) -> None:
    data = data_of(shards, TABLE)
    first, second = one_pass(data, 0), one_pass(data, 1)
    assert first != second
    assert first == one_pass(data, 0)
    parts = [one_pass(data, 0, rank, 2) for rank in range(2)]
    assert Counter(map(repr, first)) == Counter(map(repr, parts[0] + parts[1]))


def test_a_resumed_stream_asks_what_the_whole_one_asks(shards: Path) -> None:
    data = data_of(shards, TABLE)
    spec = StreamSpec(data.shards, 1, BatchRule(8, 0, 16), asked=data.asked)
    whole = [p.rows for _, p in zip(range(9), Stream(spec, START), strict=False)]  # type: ignore[union-attr]
    later = [p.rows for _, p in zip(range(5), Stream(spec, Position(0, 4)), strict=False)]  # type: ignore[union-attr]
    assert whole[4:] == later


def test_judges_rows_do_not_train(shards: Path) -> None:
    data = data_of(shards, TABLE)
    assert data.asked is not None
    assert not {one.sample.meta["id"] for one in data.judges} & set(data.asked.groups)
    assert all(turn.answer for one in data.judges for turn in one.turns)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(0, 100), st.integers(1, 6))
def test_groups_hold_each_row_once_and_no_more_than_turns(turns: int, seed: int, n: int) -> None:
    tasks = about(speech(n), own=True)
    groups = make_groups(tasks.rows, turns, seed)
    assert sorted(t for mine in groups.values() for group in mine for t in group) == list(
        tasks.rows
    )
    assert all(1 <= len(group) <= turns for mine in groups.values() for group in mine)
    assert all(len({t.id for t in group}) == 1 for mine in groups.values() for group in mine)


def test_a_chat_model_answers_by_letter_and_a_base_model_in_words() -> None:
    task = choice(0, 1)
    assert turn_of(task, "sft", audio=True) == Turn(
        f" {task.prompt}\n" + "\n".join(f"- {o}={x}" for o, x in zip(task.options, LETTERS, strict=True)),
        "B", audio=True,
    )  # fmt: skip
    assert turn_of(task, "sft", audio=False, rotation=3).answer == "A"
    assert turn_of(task, "base", audio=True).answer == f" {task.answer}"
    assert turn_of(about(SAMPLES[:1], own=True).rows[-1], "sft", False).own


def test_rows_too_long_for_the_lm_are_left_out_and_told(shards: Path) -> None:
    long = Task(
        SAMPLES[0].meta["id"],
        "train-x",
        "repeat",
        "x" * 1300,
        "y",
        (),
        "words",
        "template",
        "CC0-1.0",
    )
    table = TABLE._replace(tasks=make_tasks(header(), [*TABLE.tasks.rows, long]))
    data = data_of(shards, table)
    assert "1 rows of the table left out: too long" in data.note
    assert not any("xxx" in turn.prompt for row in one_pass(data) for turn in row)


@pytest.mark.parametrize("stretch", [0.0, 0.5])
def test_a_group_that_is_too_long_is_asked_apart(shards: Path, stretch: float) -> None:
    rows = [
        Task(
            SAMPLES[7].meta["id"],
            "train-x",
            "repeat",
            c * 700,
            "y",
            (),
            "words",
            "template",
            "CC0-1.0",
        )
        for c in "ab"
    ]
    table = TABLE._replace(tasks=make_tasks(header(), [*TABLE.tasks.rows, *rows]), turns=8)
    asked = data_of(shards, table, stretch).asked
    assert asked is not None
    assert asked.count(SAMPLES[7].meta["id"]) == 5  # all of them one by one
    assert asked.count(SAMPLES[8].meta["id"]) == 1


def test_rows_of_text_alone_are_left_out_where_no_adapter_acts_in_them(shards: Path) -> None:
    data = data_of(shards, TABLE._replace(alone=False))
    assert "7 rows of text alone left out" in data.note
    assert not any(prompt.startswith("hi") for prompt, _ in questions(one_pass(data)))


def test_a_row_whose_utterance_is_missing_is_refused(shards: Path) -> None:
    table = TABLE._replace(tasks=about([*SAMPLES, *speech(2, 1, 900)]))
    with pytest.raises(
        OmniError, match="2 utterances of the table are in no split that trains here"
    ):
        data_of(shards, table)


def test_a_table_of_text_alone_trains_nothing(shards: Path) -> None:
    texts = [task for task in TABLE.tasks.rows if not task.id]
    with pytest.raises(OmniError, match="no row of the table can train"):
        data_of(shards, TABLE._replace(tasks=make_tasks(header(), texts)))


def test_a_table_that_judges_is_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "mini.parquet"
    write_tasks(make_tasks(header("eval"), [choice(0, 0)]), path)
    with pytest.raises(OmniError, match="a table that judges is not trained on"):
        read_table(str(path), TOK, "sft", 1, 0, False)


class _NoLetters(Tokenizer):
    def __init__(self) -> None:
        pass

    def encode(self, text: str) -> list[int]:
        return [0] * (2 if text == "C" else 1)


def test_letters_that_are_no_tokens_are_refused(tmp_path: Path) -> None:
    write_tasks(about(SAMPLES[:4]), tmp_path / "answers.parquet")
    with pytest.raises(OmniError, match="letter C is 2 tokens"):
        read_table(str(tmp_path / "answers.parquet"), _NoLetters(), "sft", 1, 0, False)
    assert (
        read_table(str(tmp_path / "answers.parquet"), _NoLetters(), "base", 1, 0, False).turns == 1
    )
