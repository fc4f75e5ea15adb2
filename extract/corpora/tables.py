"""Tables as other tools write them, to rows of the columns that matter: CSV, TSV, JSONL, parquet.

No type is guessed, and a column that nobody asks for is neither kept nor looked at. Must not know what
a column means.
"""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from extract.corpora.texts import decode, require_line_ends, split_lines
from omni.errors import OmniError

LONGEST_LINE = 1 << 26  # bytes of a JSON line; a longer one is no table
LONGEST_FILE = 1 << 31  # bytes of a table that has to be held whole
DELIMITERS = (",", ";", "\t", "|")  # of a CSV: the first with which its head names what is wanted
KINDS = "tsv, csv, jsonl or parquet"
Wanted = Callable[[str], bool]  # whether a column, by its folded name, is kept


class Row(NamedTuple):
    """Values by folded column name; only the columns that were wanted."""

    number: int  # from 1, as the errors say it
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """What was read."""

    path: Path
    columns: tuple[str, ...]  # as they are called there; of JSON, those of the first row
    rows: list[Row]


def read_table(path: Path, wanted: Wanted) -> Table:
    """Read a table.

    Names of columns are folded: no blanks around them, lower case. A quotation mark in a TSV, or where
    bars part the fields, is part of the sentence, as Common Voice and LJSpeech have it.

    Args:
        path: `.tsv`, `.csv`, `.jsonl`, `.json` (lines or one array), each with `.gz` or without, or
            `.parquet`.
        wanted: which columns are kept.

    Raises:
        OmniError: no such file, another kind, unreadable, no rows, or a row with more or fewer fields
            than there are columns; the row is named.
    """
    kind = next((s for s in reversed(path.suffixes) if s.lower() != ".gz"), "").lower()
    readers = {
        ".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_json, ".json": _read_json,
        ".parquet": _read_parquet,
    }  # fmt: skip
    if kind not in readers:
        raise OmniError(f"transcripts in a {kind or 'suffixless'} file", str(path), f"use {KINDS}")
    if "\0" in str(path):
        raise OmniError("no file's name: it holds a zero byte", ascii(str(path)))
    if path.exists() and not path.is_file():  # a pipe may never end, and is read only once
        raise OmniError("the transcripts are no regular file", str(path), "write them to a file")
    try:
        table = readers[kind](path, wanted)
    except (OSError, EOFError, zlib.error) as error:
        mend = getattr(error, "strerror", None) or str(error)
        raise OmniError("the transcripts can't be read", str(path), mend) from error
    if not table.rows:
        raise OmniError("the table has no rows", str(path), columns_found(table.columns))
    return table


def fold(name: str) -> str:
    """A column's name as it is looked up."""
    return name.strip().strip("\ufeff").casefold()


def columns_found(columns: Iterable[str]) -> str:
    """What a message says of a table's columns."""
    return "columns found: " + (", ".join(c[:40] for c in [*columns][:20]) or "none")


def _read_tsv(path: Path, wanted: Wanted) -> Table:
    lines = [line for line in split_lines(_text(path)) if line.strip()]
    return _with_head(path, (line.split("\t") for line in lines), wanted)


def _read_csv(path: Path, wanted: Wanted) -> Table:
    text = _text(path).replace("\r\n", "\n").replace("\r", " ")
    heads = {delimiter: _head(text, delimiter) for delimiter in DELIMITERS}
    names = {d: sum(wanted(fold(cell)) for cell in head) for d, head in heads.items()}
    delimiter = max(DELIMITERS, key=lambda d: names[d])
    if not names[delimiter] and len(heads["|"]) in (2, 3):
        return _with_head(path, _ljspeech(path, list(_records(path, text, "|"))), wanted)
    return _with_head(path, _records(path, text, delimiter), wanted)


def _head(text: str, delimiter: str) -> list[str]:
    """The first record, if that is what parts its fields."""
    try:
        return next(csv.reader(io.StringIO(text[: 1 << 16], newline="\n"), delimiter=delimiter), [])
    except csv.Error:
        return []


def _ljspeech(path: Path, records: list[list[str]]) -> Iterator[list[str]]:
    """LJSpeech's metadata.csv has no head: `ID|TEXT` or `ID|TEXT|TEXT IN FULL WORDS`; the latter counts.

    Raises:
        OmniError: a third field that is something else, a speaker for instance.
    """
    plain, full = (
        sum(len(r[i].split()) for r in records if len(r) == 3 and r[2].strip()) for i in (1, 2)
    )
    if not plain / 2 <= full <= plain * 4:
        what = "no head, and of three fields it can't be told which is the transcript"
        raise OmniError(what, str(path), "name them in a first line, like audio|text|speaker")
    yield ["audio", "text"]
    for record in records:
        is_one = len(record) in (2, 3)
        yield [record[0], record[-1] if record[-1].strip() else record[1]] if is_one else record


def _records(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    """Records of a CSV that are not empty.

    Raises:
        OmniError: quotation marks that do not close.
    """
    csv.field_size_limit(LONGEST_LINE)
    bars = delimiter == "|"
    padded = f"{delimiter} " in text.partition("\n")[0]  # blanks behind the head's delimiters
    reader = csv.reader(
        io.StringIO(text, newline="\n"),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if bars else csv.QUOTE_MINIMAL,
        skipinitialspace=padded and not bars,
        strict=True,
    )
    begin = 1
    try:
        for record in reader:
            begin = reader.line_num + 1
            if any(cell.strip() for cell in record):
                yield record
    except csv.Error as error:
        what = f"the record at line {begin} is no CSV ({error})"
        raise OmniError(what, str(path), "look at its quotation marks") from error


def _with_head(path: Path, records: Iterator[list[str]], wanted: Wanted) -> Table:
    """The first record names the columns; every other has as many fields."""
    head = next(records, [])
    folded = [fold(name) for name in head]
    kept = [(i, name) for i, name in enumerate(folded) if wanted(name)]
    _require_unique([name for _, name in kept], path)
    rows = []
    for number, record in enumerate(records, start=1):
        if len(record) != len(head):
            what = f"row {number} has {len(record)} fields, the head {len(head)}"
            mend = "a field with the separator or a line break in it needs quotation marks"
            raise OmniError(what, str(path), f"{mend} in a CSV, and can't be in a TSV")
        rows.append(Row(number, {name: record[i] for i, name in kept}))
    return Table(path, tuple(head), rows)


def _read_json(path: Path, wanted: Wanted) -> Table:
    with _open(path) as file:
        head = file.read(64)
        file.seek(0)
        marked = head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[:2] == b"\0\0"
        if marked or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            text = _text(path).lstrip()
            found = _objects_of_array(text, path) if text[:1] == "[" else _objects(text, path)
            return _of_objects(path, found, wanted)
        return _of_objects(path, _objects_of_lines(file, path), wanted)


def _of_objects(path: Path, objects: Iterable[tuple[int, Any]], wanted: Wanted) -> Table:
    rows: list[Row] = []
    columns: tuple[str, ...] = ()
    for number, found in objects:
        if not isinstance(found, dict):
            what = f"row {number} is no JSON object but {type(found).__name__}"
            raise OmniError(what, str(path), 'a line is {"audio": …, "text": …}')
        columns = columns or tuple(found)
        kept = [name for name in found if wanted(fold(name))]
        _require_unique([fold(name) for name in kept], path)
        twice = [*_Doubled.keys_of(found, kept)]
        if twice:
            what = f"row {number} has the key {twice[0][:40]} twice"
            raise OmniError(what, str(path), "which of the two values is meant? Leave one out")
        rows.append(Row(number, {fold(name): found[name] for name in kept}))
    return Table(path, columns, rows)


def _objects_of_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            what = f"row {number} is longer than {LONGEST_LINE >> 20} MB"
            raise OmniError(what, str(path), "a row is a line of JSON")
        try:
            text = line.decode("utf-8").strip().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            what = f"row {number} is not UTF-8 (byte 0x{line[error.start]:02x})"
            raise OmniError(what, str(path), "save the table as UTF-8") from error
        if text:
            yield number, _parse(text, number, path)


def _objects(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(split_lines(text), start=1):
        if line.strip():
            yield number, _parse(line, number, path)


def _objects_of_array(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    found = _parse(text, 1, path)
    yield from enumerate(found, start=1)


def _parse(text: str, number: int, path: Path) -> Any:
    """One JSON value, its numbers as they are written."""
    try:
        return json.loads(
            text, parse_int=str, parse_float=str, object_pairs_hook=_Doubled.if_doubled
        )
    except RecursionError as error:
        raise OmniError(f"row {number} is nested too deep", str(path)) from error
    except ValueError as error:
        raise OmniError(f"row {number} is no JSON", str(path), f"{error}"[:200]) from error


class _Doubled(dict[str, Any]):
    """A JSON object that holds keys twice; of others nothing has to be remembered."""

    __slots__ = ("twice",)
    twice: list[str]

    @classmethod
    def if_doubled(cls, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object of these pairs."""
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        found = cls(plain)
        counts = Counter(name for name, _ in pairs)
        found.twice = [name for name, count in counts.items() if count > 1]
        return found

    @classmethod
    def keys_of(cls, value: Any, kept: Sequence[str] | None = None) -> Iterator[str]:
        """Keys that stand twice in an object or below it; of its own only those that are kept."""
        if isinstance(value, cls):
            yield from (name for name in value.twice if kept is None or name in kept)
        if isinstance(value, dict):
            for name, inner in value.items():
                if kept is None or name in kept:
                    yield from cls.keys_of(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from cls.keys_of(inner)


def _read_parquet(path: Path, wanted: Wanted) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            kept = [name for name in schema.names if wanted(fold(name))]
            _require_unique([fold(name) for name in kept], path)
            # Of the hub's audio {bytes, path} the path alone: the bytes are as large as the corpus.
            leaves = [leaf for name in kept for leaf in _leaves(schema.field(name))]
            found = chain.from_iterable(
                batch.to_pylist() for batch in file.iter_batches(columns=leaves)
            )
            rows = [
                Row(number, {fold(name): row.get(name) for name in kept})
                for number, row in enumerate(found, start=1)
            ]
    except (pa.ArrowException, ValueError) as error:
        raise OmniError("the transcripts can't be read", str(path), str(error)[:200]) from error
    return Table(path, tuple(schema.names), rows)


def _leaves(field: Any) -> list[str]:
    import pyarrow as pa

    inner = [f.name for f in field.type] if pa.types.is_struct(field.type) else []
    return [f"{field.name}.path"] if "path" in inner else [field.name]


def _require_unique(names: list[str], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OmniError(f"two columns are named {twice[0]}", str(path), "rename one")


def _text(path: Path) -> str:
    with _open(path) as file:
        data = file.read(LONGEST_FILE + 1)
    if len(data) > LONGEST_FILE:
        raise OmniError("the table is too large", str(path), "use parquet, or lines of JSON")
    text = decode(data, str(path))
    require_line_ends(text, path)
    return text


def _open(path: Path) -> BinaryIO:
    """The table's bytes, unpacked.

    Raises:
        OSError: as `open`; a damaged gzip file while it is read.
    """
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]
