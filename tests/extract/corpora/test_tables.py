"""Tables as other tools write them: only the columns that are read can matter.

.venv/bin/python -m pytest tests/extract/corpora/test_tables.py
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folder_kit import listing, record, recordings, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from extract.corpora.columns import is_wanted
from extract.corpora.folder import folder_manifest
from extract.corpora.tables import read_table
from omni.errors import OmniError

TWO = {"u0": "zero", "u1": "one"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return recordings(tmp_path / "corpus", "u0.wav", "u1.wav")


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


READ = {
    "mixed.jsonl": jsonl(
        {"audio": "u0.wav", "text": "zero", "words": [], "speaker": 1},
        {"audio": "u1.wav", "text": "one", "words": "none", "speaker": "b"},
    ),
    "long.jsonl": jsonl(
        {"audio": "u0.wav", "text": "zero", "words": []},
        {"audio": "u1.wav", "text": "one", "words": [{"w": "x" * 20, "s": i} for i in range(60_000)]},
    ),
    "dict.jsonl": jsonl(
        {"audio": {"path": "u0.wav", "bytes": None}, "text": "zero"},
        {"audio": {"path": "u1.wav"}, "text": "one"},
    ),
    "array.json": json.dumps([{"audio": "u0.wav", "text": "zero"}, {"audio": "u1.wav", "text": "one"}]),
    "pretty.jsonl": json.dumps([{"path": f"u{i}.wav", "text": t} for i, t in enumerate(TWO.values())], indent=2),
    "half.jsonl": '{"audio":"u0.wav","text":"zero","x":"\\ud83d"}\n{"audio":"u1.wav","text":"one"}\n',
    "breaks.jsonl": '{"audio":"u0.wav","text":"zero","x":"a\u2028b\x85"}\r\n\r\n{"audio":"u1.wav","text":"one"}',
    "spaces.csv": "audio, text\nu0.wav, zero\nu1.wav, one\n",
    "quoted.csv": 'x,"Audio ", "TEXT"\n"a\nb","u0.wav", "zero"\n1,u1.wav,"one"\n\n',
    "semicolon.csv": "audio;text;note\nu0.wav;zero;a,b\nu1.wav;one;c\n",
    "bars.csv": 'audio|text\nu0.wav|zero\nu1.wav|one\n',
    "ljspeech.csv": "u0|0|zero\nu1|one|\n",
    "mark.csv": "\ufeffaudio,text\r\nu0.wav,zero\r\nu1.wav,one\r\n",
    "cv.tsv": "client_id\tpath\tsentence\tup_votes\nx\tu0.mp3\tzero\t2\ny\tu1.mp3\tone\t\n",
    "hub.csv": "file_name,transcription\nu0.wav,zero\nu1.wav,one\n",
    "names.TSV": "audio_filepath\ttranscript\nu0\tzero\n./u1\tone\n",
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_tables_of_others_are_read(corpus: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(READ[name], encoding="utf-8", newline="")
    assert listing(corpus, tmp_path / name) == TWO


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("name", ["mixed.jsonl", "array.json", "quoted.csv", "cv.tsv"])
def test_tables_with_a_mark_are_read(
    corpus: Path, tmp_path: Path, name: str, encoding: str
) -> None:
    (tmp_path / name).write_bytes(READ[name].encode(encoding))
    assert listing(corpus, tmp_path / name) == TWO
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert listing(corpus, packed) == TWO


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2024-05-01", "2024-05-01"),
        (1, "1"),
        (2.5, "2.5"),
        (True, "true"),
        ("007", "007"),
        ("1e3", "1e3"),
    ],
)
def test_a_text_is_as_it_is_written(corpus: Path, tmp_path: Path, value: Any, text: str) -> None:
    (corpus / "u1.wav").unlink()
    assert listing(
        corpus, write_jsonl(tmp_path / "t.jsonl", [{"audio": "u0.wav", "text": value}])
    ) == {"u0": text}
    (tmp_path / "t.csv").write_text(f"audio,text\nu0.wav,{text}\n")
    assert listing(corpus, tmp_path / "t.csv") == {"u0": text}
    pq.write_table(pa.table({"audio": ["u0.wav"], "text": [value]}), tmp_path / "t.parquet")
    assert listing(corpus, tmp_path / "t.parquet") == {"u0": text}


def test_a_table_of_the_hub_is_read_by_its_paths_alone(corpus: Path, tmp_path: Path) -> None:
    rows = [
        {"audio": {"bytes": (corpus / f"{i}.wav").read_bytes(), "path": f"{i}.wav"}, "text": t}
        for i, t in TWO.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hub.parquet")
    assert listing(corpus, tmp_path / "hub.parquet") == TWO
    table = read_table(tmp_path / "hub.parquet", is_wanted)
    assert table.rows[0].values == {"audio": {"path": "u0.wav"}, "text": "zero"}
    rows[0]["audio"]["path"] = rows[1]["audio"]["path"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bytes.parquet")
    with pytest.raises(OmniError, match=r"row 1, column audio: it holds no path"):
        listing(corpus, tmp_path / "bytes.parquet")


def test_a_csv_with_many_breaks_and_long_fields(corpus: Path, tmp_path: Path) -> None:
    lines = "".join(f'other{i}.wav,"one {i}\ntwo {"x" * 40}\nthree"\n' for i in range(20_000))
    (tmp_path / "t.csv").write_text(f'audio,text\nu0.wav,"{"long " * 40_000}"\n{lines}')
    rows = {u.id: u for u in folder_manifest(corpus, "talks", str(tmp_path / "t.csv")).utterances}
    assert len(rows) == 20_001
    assert rows["u0"].text_norm == ("long " * 40_000).strip()
    assert rows["other7"].text_norm == f"one 7 two {'x' * 40} three"


REFUSED = {
    "deep.jsonl": ('{"audio":"u0.wav","text":"a","x":' + "[" * 100_000 + "]" * 100_000 + "}", "row 1 is nested too deep"),
    "deep.json": ("[" * 100_000, "row 1 is nested too deep"),
    "half.jsonl": ('{"audio":"u0.wav","text":"a"}\n{"audio":', "row 2 is no JSON"),
    "list.jsonl": ("[1]\n[2]", "row 1 is no JSON"),
    "scalar.json": ("[1, 2]", "row 1 is no JSON object but str"),
    "value.jsonl": (jsonl({"audio": "u0.wav", "text": ["a"]}), "row 1, column text: list, no text"),
    "path.jsonl": (jsonl({"audio": {"src": 1}, "text": "a"}), "row 1, column audio: it holds no path"),
    "nothing.jsonl": (jsonl({"audio": "u0.wav", "text": "a"}, {"audio": "", "text": "b"}), "row 2 names no audio"),
    "empty.jsonl": ("", "the table has no rows"),
    "empty.csv": ("audio,text\n", "no rows .*columns found: audio, text"),
    "nohead.csv": ("u0.wav,hello\nu1.wav,world\n", "no column names the audio .*columns found: u0.wav, hello"),
    "nohead.tsv": ("u0.wav\thello\n u1.wav\tworld\n", "no column names the audio .*columns found: u0.wav, hello"),
    "notext.csv": ("audio,words\nu0.wav,a\n", "no column holds the transcript .*columns found: audio, words"),
    "comma.csv": ("audio,text\nu0.wav,hello, world\n", "row 1 has 3 fields, the head 2"),
    "short.tsv": ("audio\ttext\nu0.wav\thello\nworld\n", "row 2 has 1 fields, the head 2"),
    "open.csv": ('audio,text\nu0.wav,"hello\nu1.wav,world\n', "the record at line 2 is no CSV"),
    "twice.csv": ("audio,text,Text\nu0.wav,a,b\n", "two columns are named text"),
    "bars.csv": ("u0|hello there my friend|sue\nu1|and good bye to you|tom\n", "no head"),
    "other.csv": ("audio,text\nx.wav,a\ny.wav,b\n", r"names no file of the folder; row 1 has 'x\.wav'.*'u0\.wav'"),
    "t.xlsx": ("", "use tsv, csv, jsonl or parquet"),
    "t.parquet": ("PAR1", "can't be read"),
    "t.csv.gz": ("no gzip", "can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_read_is_refused_in_one_line(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    content, message = REFUSED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(OmniError, match=message) as caught:
        listing(corpus, tmp_path / name)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_table_in_another_encoding_names_the_row(corpus: Path, tmp_path: Path, name: str) -> None:
    content = READ[{"t.csv": "hub.csv", "t.tsv": "cv.tsv", "t.jsonl": "mixed.jsonl"}[name]]
    (tmp_path / name).write_bytes(
        content.replace("one", "café").encode("latin-1").replace(b"\\u00e9", b"\xe9")
    )
    if name == "t.jsonl":
        (tmp_path / name).write_bytes(content.encode().replace(b"one", b"caf\xe9", 1))
    with pytest.raises(OmniError, match=r"(line 3|row 2) is not UTF-8 \(byte 0xe9\)"):
        listing(corpus, tmp_path / name)


def test_half_a_character_is_a_failure_of_its_own(corpus: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"audio":"u0.wav","text":"a \\ud83d"}\n{"audio":"u1.wav","text":"one"}\n')
    assert listing(corpus, table) == {"u0": "<the text holds half a character>", "u1": "one"}
    table.write_text('{"audio":"u0\\ud83d.wav","text":"a"}\n{"audio":"u1.wav","text":"one"}\n')
    assert listing(corpus, table)["u1"] == "one"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text().filter(lambda n: not is_wanted(n.strip().casefold())), _JSON))
def test_foreign_columns_can_not_matter(foreign: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "a.wav")
        rows = [{**foreign, "audio": "a.wav", "text": "words"}]
        assert listing(Path(folder), write_jsonl(Path(folder) / "t.jsonl", rows)) == {"a": "words"}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"audio": "u0.wav", "text": "a", "text": "b"}', "text"),
        ('{"audio": "u0.wav", "text": "a", "text": "a"}', "text"),
        ('{"audio": "u0.wav", "audio": "u1.wav", "text": "a"}', "audio"),
        ('{"audio": "u0.wav", "text": "a", "speaker": "x", "speaker": "y"}', "speaker"),
        ('{"audio": {"path": "u0.wav", "path": "u1.wav"}, "text": "a"}', "path"),
        ('{"audio": "u0.wav", "start": 0, "start": 0.2, "end": 0.3, "text": "a"}', "start"),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_a_key_that_stands_twice_is_refused(
    corpus: Path, tmp_path: Path, line: str, key: str, array: bool
) -> None:
    first = '{"audio": "u1.wav", "text": "c"}'
    table = tmp_path / "t.json"
    table.write_text(f"[{first}, {line}]" if array else f"{first}\n{line}\n")
    with pytest.raises(OmniError, match=rf"row 2 has the key {key} twice") as caught:
        listing(corpus, table)
    assert str(table) in str(caught.value)


def test_a_column_that_nobody_asks_for_may_stand_twice(corpus: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text(
        '{"audio": "u0.wav", "text": "a", "tag": 1, "tag": 2, "m": {"x": 1, "x": 2}}\n'
    )
    assert listing(corpus, table) == {"u0": "a"}


@pytest.mark.parametrize("name", ["a\0.csv", "\0", "a\0b/t.jsonl", "t.parquet\0"])
def test_a_table_s_name_with_a_zero_byte_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(OmniError) as caught:
        read_table(tmp_path / name, lambda _: True)
    assert "\n" not in str(caught.value)
