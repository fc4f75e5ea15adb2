"""Columns that say which piece of a file, or which side of an evaluation, in words of their own.

.venv/bin/python -m pytest tests/extract/corpora/test_hidden_columns.py
"""

from pathlib import Path
from typing import Any

import pytest
from folder_kit import record, recordings, write_jsonl

from extract.corpora.folder import folder_manifest
from omni.errors import OmniError


def span(folder: Path, columns: dict[str, Any]) -> tuple[float, float]:
    record(folder / "c" / "u0.wav", 3.0, 8_000)
    table = write_jsonl(folder / "t.jsonl", [{"audio": "u0.wav", "text": "a", **columns}])
    (row,) = folder_manifest(folder / "c", "talks", str(table)).utterances
    assert not row.problem
    return row.start, row.length


@pytest.mark.parametrize(
    "columns",
    [
        {"from": 1, "to": 2.5},
        {"t0": "1", "t1": "2.5"},
        {"beg": 1, "fin": 2.5},
        {"Beg_time": "0:01", "end_time": "0:02.5"},
        {"finish": 2.5, "begin": 1.0},
    ],
)
def test_times_under_short_names_are_obeyed(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert span(tmp_path, columns) == (1.0, 1.5)


@pytest.mark.parametrize(
    "columns",
    [
        {"from": "ann@example.org", "to": "bob"},
        {"from": 1, "to": ""},
        {"to": 2},
        {"t0": None, "t1": None},
        {"timestamp": "2024-05-01 12:00"},
        {"timestamp": 1714564800},
        {"time": "12:30"},
        {"segment": "Benchmark"},
        {"segment": "", "chunk": 3, "range": None},
        {"span": [2, 1]},
        {"length": 48_000},
        {"split": "train", "set": 3},
    ],
)
def test_other_columns_of_such_names_are_not(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert span(tmp_path, columns) == (0.0, 0.0)


@pytest.mark.parametrize(
    "columns",
    [
        {"timestamp": [0.5, 2.0]},
        {"segment": "0.5-2.0"},
        {"segment": "[0.5, 2.0]"},
        {"interval": "0:00.5 --> 0:02"},
        {"span": {"start": 0.5, "end": 2.0}},
        {"begin": 0, "length": 1.5},
        {"offset": 1, "length": "16000"},
    ],
)
def test_a_piece_that_is_told_otherwise_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    with pytest.raises(OmniError, match=r"row 1, column (timestamp|segment|interval|span|length)"):
        span(tmp_path, columns)


@pytest.mark.parametrize(
    ("column", "value"),
    [("split", "test"), ("subset", "dev-clean"), ("Partition", "Validation"), ("set", "cv_test")],
)
def test_rows_that_a_table_puts_aside_are_not_trained_on(
    tmp_path: Path, column: str, value: str
) -> None:
    recordings(tmp_path / "c", "u0.wav", "u1.wav")
    table = tmp_path / "t.csv"
    table.write_text(f"audio,text,{column}\nu0.wav,a,train\nu1.wav,b,{value}\n")
    with pytest.raises(OmniError, match=f"1 rows are of split {value}, row 2"):
        folder_manifest(tmp_path / "c", "talks", str(table))
    for split, role in (("talks", "train"), ("dev-talks", None), ("talks", "eval")):
        manifest = folder_manifest(tmp_path / "c", split, str(table), role)
        assert [u.text for u in manifest.utterances] == ["a", "b"]
    table.write_text(f"audio,text,{column}\nu0.wav,a,train\nu1.wav,b,validated\n")
    assert folder_manifest(tmp_path / "c", "talks", str(table)).role == "train"
