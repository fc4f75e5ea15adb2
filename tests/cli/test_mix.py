"""omni-mix as it is typed: shards to a table and its census; what is wrong, in one line.

.venv/bin/python -m pytest tests/cli/test_mix.py
"""

from pathlib import Path

import pytest
from command_kit import one_line
from tasks_kit import choice, header, heard
from training_kit import speech, write_split

from cli.mix import main
from omni.formats.manifest import Utterance, make_manifest, write_manifest
from omni.formats.tasks import make_tasks, read_tasks, write_tasks


def listed(folder: Path, split: str = "train-a", n: int = 120) -> Path:
    rows = [
        Utterance(h.id, h.speaker, sex=h.sex, audio="x.flac", text_norm=h.text)
        for h in heard(n).heard
    ]
    write_manifest(make_manifest(split, folder, rows, "train"), folder / "m.parquet")
    return folder / "m.parquet"


def test_a_table_from_shards_lies_in_its_folder_and_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "shards", "train-x", speech(40))
    words = ["--shards", "shards", "--out", "said", "--rows", "40", "--shares", "repeat=1"]
    assert main(words) == 0
    path = Path("manifests/tasks/said.parquet")
    out = capsys.readouterr().out
    assert f"written: {path}" in out
    assert "40 rows about" in out
    table = read_tasks(path)
    said = {s.meta["id"]: s.meta["text_norm"] for s in speech(40)}
    plain = [row for row in table.rows if row.kind == "repeat"]
    assert plain
    assert all(said[row.id] == row.answer for row in plain)
    first = path.read_bytes()
    assert main(words) == 0
    assert path.read_bytes() == first
    assert main(["--look", str(path)]) == 0
    assert "40 rows about" in capsys.readouterr().out


def test_the_default_shares_leave_out_what_can_t_be_had_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--manifests", listed(tmp_path), "--out", tmp_path / "t.parquet", "--rows", "200"]
    assert main([*map(str, words), "--licence", "CC0-1.0"]) == 0
    told = capsys.readouterr()
    for share in ("self", "none", "text"):
        assert f"without {share}: " in told.err
    table = read_tasks(tmp_path / "t.parquet")
    assert len(table.rows) == 200
    assert {row.licence for row in table.rows} == {"CC0-1.0"}
    assert sum(table.header["shares"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to make a table of"),
        (["--shards", "none", "--out", "x"], "no such shard folder"),
        (["--manifests", "none.parquet", "--out", "x"], "can't be read"),
        (["--manifests", "m.parquet", "--out", "../x"], "can't have this name"),
        (["--manifests", "m.parquet", "--out", "x", "--mini"], "for eval"),
        (["--manifests", "m.parquet", "--out", "x", "--shares", "text=1"], "no chats"),
        (["--manifests", "m.parquet", "--out", "x", "--chats", "no.jsonl"], "can't be read"),
        (["--look", "m.parquet"], "no table of tasks"),
        (["--manifests", "m.parquet", "--out", "x", "--lm", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    listed(tmp_path)
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert told in one_line(said[-1])
    assert all("passed over" in line for line in said[:-1])
    assert not list(tmp_path.rglob("*x.parquet"))


def test_the_census_of_a_table_whose_key_is_always_a_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks(make_tasks(header(), [choice(i, 0) for i in range(40)]), tmp_path / "t.parquet")
    assert main(["--look", str(tmp_path / "t.parquet")]) == 0
    assert "alert: always A gets 100%" in capsys.readouterr().out
