"""The table of tasks: what is asked of an utterance, what is answered, four options or none.

`manifests/tasks/NAME.parquet`; `manifests/README.md` describes every column. It lies beside the shards and
is joined to them by the utterance's id while they are streamed. A prompt holds no options: `question`
renders them, so that evaluation can move them on. Must not know a model, nor how a task is thought up.
"""

import io
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from typing_extensions import TypedDict

from omni.errors import OmniError
from omni.formats.checked import check_value, parse_json
from omni.formats.files import safe_id, safe_name, write_whole
from omni.formats.records import Hash

if TYPE_CHECKING:
    import pyarrow

TASKS_SCHEMA = 1
FOLDER = Path("manifests") / "tasks"
LETTERS = "ABCD"
Needs = Literal["words", "voice", "sound", "none"]  # what an answer must be heard from
Source = Literal["template", "self", "text"]
_KIND = re.compile(r"[a-z]+(/[a-z]+(-[a-z]+)*)?")
_LONGEST = 100_000  # characters of a prompt or an answer: a row of an LM is shorter
_MEND = "make the table anew with omni-mix"


@dataclass(frozen=True, order=True)
class Task:
    """One task row. The order is the table's."""

    id: str  # of the utterance; "" for a row of text alone
    split: str
    kind: str  # "repeat", "content/after", …
    prompt: str  # without options, without a blank in front
    answer: str  # in words: one of the options where there are any
    options: tuple[str, ...]  # four, or none
    needs: Needs
    source: Source
    licence: str  # of what was heard, or of the text

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            shown = f"{self.kind[:40]} of {self.id[:100] or 'text'}: {self.prompt[:60]!r}"
            raise OmniError(fault, shown, "mend the table's maker")

    @property
    def key(self) -> int:
        """Place of the answer among the options; -1 where there are none."""
        return self.options.index(self.answer) if self.options else -1


class Question(NamedTuple):
    """A task as it is put to the LM. key: the letter that is right, "" for an open question."""

    prompt: str
    key: str
    options: tuple[str, ...]


def question(task: Task, rotation: int = 0) -> Question:
    """The prompt with its options, moved on by `rotation` places.

    In nanochat's own layout, which its models were trained on: a line each, `- choice=A`, no blank
    before the letter.
    """
    if not task.options:
        return Question(task.prompt, "", ())
    n = len(task.options)
    options = tuple(task.options[(i - rotation) % n] for i in range(n))
    lines = [f"- {option}={letter}" for option, letter in zip(options, LETTERS, strict=True)]
    key = LETTERS[(task.key + rotation) % n]
    return Question("\n".join([task.prompt, *lines]), key, options)


def key_counts(rows: Iterable[Task]) -> tuple[int, ...]:
    """Rows whose key is at A, B, C, D."""
    places = [row.key for row in rows]
    return tuple(places.count(i) for i in range(len(LETTERS)))


def lopsided(keys: Sequence[int]) -> str:
    """In words, that the key is at one letter more often than at another; "" if it is not.

    Args:
        keys: as `key_counts` gives them.
    """
    if sum(keys) and max(keys) - min(keys) > max(2, 0.02 * sum(keys)):
        shown = "/".join(map(str, keys))
        return f"the key is not as often at each letter: {shown} at A/B/C/D"
    return ""


class Input(TypedDict):
    """What a table was made from: a split's utterances, or a file of chats."""

    name: str
    n: int
    sha256: Hash  # of the ids, texts and labels; of a file's bytes


class TasksHeader(TypedDict):
    """What stands beside the rows.

    role: "train", or "eval" for a table that judges and never trains. shuffled: whether prompts and
    answers were given to other utterances than their own (a control).
    """

    schema: int
    role: Literal["train", "eval"]
    seed: int
    shares: dict[str, float]
    shuffled: bool
    inputs: list[Input]


@dataclass(frozen=True)
class Tasks:
    """A table: its header, and its rows in order."""

    header: TasksHeader
    rows: tuple[Task, ...]

    def of_utterances(self) -> dict[str, list[Task]]:
        """Rows by the id of their utterance; those of text alone under ""."""
        found: dict[str, list[Task]] = {}
        for task in self.rows:
            found.setdefault(task.id, []).append(task)
        return found


def make_tasks(header: TasksHeader, rows: Iterable[Task]) -> Tasks:
    """A table of these rows, sorted.

    Raises:
        OmniError: no rows; two that are equal.
    """
    tasks = Tasks(header, tuple(sorted(rows)))
    if not tasks.rows:
        raise OmniError("a table of tasks without a row", "omni-mix")
    for one, two in itertools.pairwise(tasks.rows):
        if one == two:
            raise OmniError(f"a task row is there twice: {one.prompt[:60]!r}", one.id)
    return tasks


def table_path(name: str | Path) -> Path:
    """A name stands for a table in `FOLDER`, a path to a parquet file for itself.

    Raises:
        OmniError: a name that no file can have.
    """
    if Path(name).suffix == ".parquet":
        return Path(name)
    return FOLDER / f"{safe_name(str(name), 'a table of tasks')}.parquet"


def write_tasks(tasks: Tasks, path: Path) -> None:
    """Write parquet, whole or not at all; the same bytes for the same rows.

    Raises:
        OmniError: it can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [list(range(len(tasks.rows))), *zip(*map(astuple, tasks.rows), strict=True)]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, _types(), strict=True)], _schema())
    table = table.replace_schema_metadata({"nanochat-omni-tasks": json.dumps(tasks.header)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def read_tasks(path: Path) -> Tasks:
    """A table that `write_tasks` wrote.

    Raises:
        OmniError: no such file, not one of ours, of another schema; a row that is none: equal
            options, five of them, an answer that is not among them, a kind or need that is unknown.
            It names the row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise OmniError(
            "the table of tasks can't be read: no such file", str(path), "omni-mix makes one"
        )
    try:
        table = pq.read_table(path)
        text = (table.schema.metadata or {}).get(b"nanochat-omni-tasks")
        if text is None:
            raise OmniError(
                "no table of tasks: its parquet has no header of ours", str(path), _MEND
            )
        header = _header(text, path)
        _check_columns(table, path)
        table = table.select(_schema().names)
        listed = table.to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise OmniError("the table of tasks can't be read", str(path), str(error)) from error
    rows = []
    for i, row in enumerate(listed):
        where = f"{path}, row {i}"
        if row.pop("row") != i:
            raise OmniError("rows are missing or out of order", where, _MEND)
        check_value(row, _Stored, where, _MEND)
        try:
            rows.append(Task(**{**row, "options": tuple(row["options"])}))
        except OmniError as error:
            raise OmniError(error.what, where, _MEND) from error
    if not rows:
        raise OmniError("a table of tasks without a row", str(path), _MEND)
    return Tasks(header, tuple(rows))


class _Stored(TypedDict):
    """A row, as the file holds it."""

    id: str
    split: str
    kind: str
    prompt: str
    answer: str
    options: list[str]
    needs: Needs
    source: Source
    licence: str


def _header(text: bytes, path: Path) -> TasksHeader:
    class Schema(TypedDict):
        schema: int

    where = f"{path}, header"
    schema = parse_json(text, Schema, where, _MEND)["schema"]
    if schema != TASKS_SCHEMA:
        raise OmniError(f"tasks schema {schema}, this version reads {TASKS_SCHEMA}", where, _MEND)
    return parse_json(text, TasksHeader, where, _MEND)


def _check_columns(table: "pyarrow.Table", path: Path) -> None:
    schema = _schema()
    if missing := set(schema.names) - set(table.column_names):
        raise OmniError(f"the table lacks columns {', '.join(sorted(missing))}", str(path), _MEND)
    for name in schema.names:
        column = table.column(name)
        if column.type != schema.field(name).type or column.null_count:
            kind = f"{column.type}, {column.null_count} empty; {schema.field(name).type} is wanted"
            raise OmniError(f"the table's column {name} is {kind}", str(path), _MEND)


def _fault(task: Task) -> str:
    """What is wrong with a row, in words; "" if nothing is."""
    if not _KIND.fullmatch(task.kind):
        return f"a kind is no word, or two with a stroke between: {task.kind[:40]!r}"
    if task.needs not in get_args(Needs) or task.source not in get_args(Source):
        return f"a row that needs {task.needs!r} and comes from {task.source!r}"
    if (task.id == "") != (task.needs == "none"):
        return "a row of text alone has no utterance and needs none"
    if task.id:
        safe_id(task.id)
    for what, text in (("prompt", task.prompt), ("answer", task.answer)):
        if not text.strip() or len(text) > _LONGEST:
            return f"its {what} is empty, or longer than {_LONGEST:,} characters"
    return _options_fault(task.options, task.answer)


def _options_fault(options: Sequence[str], answer: str) -> str:
    if not options:
        return ""
    if len(options) != len(LETTERS):
        return f"{len(options)} options where there are {len(LETTERS)} letters"
    # What differs in case or blanks alone is equal to whoever reads it.
    if len({" ".join(option.casefold().split()) for option in options}) < len(options):
        return "two of its options are equal"
    if any(not option.strip() or "\n" in option for option in options):
        return "an option is empty, or longer than a line"
    return "" if answer in options else "its answer is none of its options"


def _types() -> "list[pyarrow.DataType]":
    import pyarrow as pa

    of = {"options": pa.list_(pa.string())}
    return [pa.int64(), *(of.get(f.name, pa.string()) for f in fields(Task))]


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    names = ["row", *(f.name for f in fields(Task))]
    return pa.schema(list(zip(names, _types(), strict=True)))
