"""Names that become files stay in their folder: a split's, an id's, those of a manifest's header.

.venv/bin/python -m pytest tests/omni/formats/test_names.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.extract import main
from omni.errors import OmniError
from omni.formats.files import safe_id, safe_name
from omni.formats.manifest import (
    Problem,
    Utterance,
    make_manifest,
    read_manifest,
    write_manifest,
)
from omni.formats.shard_writer import SplitSpec
from omni.formats.shards import escape_key

SPLITS = [
    "../../x",
    "..",
    "",
    "/etc",
    "a/b",
    "a\\b",
    ".hidden",
    "a\0b",
    "a\nb",
    "x" * 151,
    "\udc80",
]
IDS = ["../x", "a/../../x", "..", "", "/etc/passwd", "a\\..\\b", "a\0b", "x" * 10_000, "é" * 2049]


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="a split"):
        make_manifest(name, tmp_path, [Utterance("a")])
    with pytest.raises(OmniError, match="a split"):
        SplitSpec(tmp_path / name.replace("\0", ""), name, "train", {}, 4)


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--audio-dir", "."], ["--root", "."]])
def test_the_command_refuses_it_and_touches_nothing(
    more: list[str], tmp_path: Path, capsys
) -> None:
    outside = tmp_path / "x"
    outside.mkdir()
    (outside / "x-000000.tar").write_bytes(b"somebody's")
    out = ["--out", str(tmp_path / "a" / "b"), "--manifests", str(tmp_path / "m")]
    assert main(["--split", "../../x", *out, *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a split can't have this name" in error
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "x-000000.tar"]


@pytest.mark.parametrize("utterance_id", IDS)
def test_an_id_cannot_leave_its_folder(utterance_id: str, tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="an utterance can't have this id") as caught:
        make_manifest("talks", tmp_path, [Utterance(utterance_id)])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("utterance_id", ["a/b.c/d", "a..b", "...", "ü 1", "x/" * 90, "a\nb"])
def test_ids_that_are_paths_below_a_folder_are_fine(utterance_id: str) -> None:
    assert safe_id(utterance_id) == utterance_id


@given(st.text(max_size=200))
def test_what_is_safe_stays_where_it_is_put(text: str) -> None:
    for check, where in ((safe_name, Path("/a/b")), (safe_id, Path("/a/b"))):
        try:
            name = check(text, "it") if check is safe_name else safe_id(text)
        except OmniError:
            continue
        path = where / name
        assert ".." not in path.parts
        assert path.is_relative_to(where)
        if check is safe_name:
            assert path.parent == where
        assert "/" not in escape_key(name)


# ---- a manifest from elsewhere ----------------------------------------------------------------


def damaged_manifest(path: Path, header: object, **columns: pa.Array) -> Path:
    """A manifest of two rows whose header or columns are others."""
    write_manifest(make_manifest("talks", path.parent, [Utterance("a"), Utterance("b")]), path)
    table = pq.read_table(path)
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    if header is not None:
        mine = {"schema": 2, "split": "talks", "role": "train", "root": "/"}
        text = json.dumps({**mine, **header}) if isinstance(header, dict) else str(header)
        table = table.replace_schema_metadata({"nanochat-omni": text})
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    "header",
    [
        {"split": "../../x"},
        {"split": 7},
        {"root": None},
        {"root": "a\0b"},
        {"role": "both"},
        {"schema": "2"},
        {"schema": 1},
        "[" * 100_000,
        "null",
    ],
)
def test_a_manifest_with_a_foreign_header_is_refused(header: object, tmp_path: Path) -> None:
    with pytest.raises(OmniError):
        read_manifest(damaged_manifest(tmp_path / "m.parquet", header))


@pytest.mark.parametrize(
    "columns",
    [
        {"id": pa.array(["../x", "b"])},
        {"id": pa.array([1, 2])},
        {"text": pa.array(["one", None])},
        {"n_samples": pa.array([0.5, 1.5])},
        {"problem": pa.array(["", "unheard of"])},
    ],
)
def test_a_manifest_with_foreign_columns_is_refused(
    columns: dict[str, pa.Array], tmp_path: Path
) -> None:
    with pytest.raises(OmniError):
        read_manifest(damaged_manifest(tmp_path / "m.parquet", None, **columns))


def test_a_problem_comes_back_as_what_it_was(tmp_path: Path) -> None:
    rows = [Utterance(f"u{i}", problem=problem, note="why") for i, problem in enumerate(Problem)]
    manifest = make_manifest("talks", tmp_path, rows)
    write_manifest(manifest, tmp_path / "m.parquet")
    back = read_manifest(tmp_path / "m.parquet")
    assert back == manifest
    assert all(isinstance(u.problem, Problem) for u in back.utterances)
    assert [u.id for u in back.utterances if not u.is_complete] == ["u1", "u2"]
