"""Rows of a table and files of a folder: a selection, any spelling of a path, pieces with their times.

.venv/bin/python -m pytest tests/extract/corpora/test_listed.py
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from folder_kit import listing, record, recordings, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from extract.corpora.columns import is_wanted
from extract.corpora.folder import folder_manifest
from omni.errors import OmniError
from omni.formats.manifest import Utterance, read_manifest, write_manifest


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """Three seconds in one file."""
    record(tmp_path / "corpus" / "meeting.wav", 3.0, 8_000)
    return tmp_path / "corpus"


def rows_of(folder: Path, table: Path) -> dict[str, Utterance]:
    manifest = folder_manifest(folder, "talks", str(table))
    write_manifest(manifest, table.with_suffix(".manifest"))
    assert read_manifest(table.with_suffix(".manifest")) == manifest
    return {u.id: u for u in manifest.utterances}


def spans(folder: Path, table: Path) -> dict[str, tuple[float, float, str]]:
    rows = rows_of(folder, table).values()
    return {u.text: (u.start, u.length, u.note) for u in rows}


TIMES = [
    ({"offset": 1.0, "duration": 1.0}, (1.0, 1.0)),
    ({"start": 1, "end": 2.5}, (1.0, 1.5)),
    ({"begin_time": "1.25", "end_time": "2"}, (1.25, 0.75)),
    ({"startTime": "0:01", "endTime": "00:00:02.5"}, (1.0, 1.5)),
    ({"Segment_Start": 1, "segment_end": 2, "duration": 1}, (1.0, 1.0)),
    ({"offset": 1.0}, (1.0, 0.0)),
    ({"end": 1.5}, (0.0, 1.5)),
    ({"offset": 1, "duration": 2.04}, (1.0, 0.0)),
    ({"offset": None, "duration": 3.0}, (0.0, 0.0)),
    ({"duration": 2.95}, (0.0, 0.0)),
    ({"duration": 1.0}, (0.0, 1.0)),
    ({"start": 0, "end": 3}, (0.0, 0.0)),
    ({"start_ms": None, "duration_ms": 3000}, (0.0, 0.0)),
    ({"start_char": 5, "end_of_sentence": None, "channel": "BBC", "channel_id": 1}, (0.0, 0.0)),
]


@pytest.mark.parametrize(("columns", "span"), TIMES)
def test_times_of_any_name_make_a_piece(meeting: Path, tmp_path: Path, columns, span) -> None:
    rows = [{"audio_filepath": "meeting.wav", "text": "words", **columns}]
    assert spans(meeting, write_jsonl(tmp_path / "t.jsonl", rows)) == {"words": (*span, "")}


@pytest.mark.parametrize(
    "table",
    [
        "audio_filepath,offset,duration,text\nmeeting.wav,0.0,1.0,a\nmeeting.wav,1.0,1.0,b\nmeeting.wav,2.0,1.0,c\n",
        "audio,start,end,text\nmeeting.wav,0,1,a\nmeeting.wav,1,2,b\nmeeting.wav,2,3,c\n",
        "path;begin_time;end_time;sentence\nmeeting;0;1;a\nmeeting;1;2;b\nmeeting;2;3.004;c\n",
    ],
)
def test_pieces_of_one_recording_are_utterances(meeting: Path, tmp_path: Path, table: str) -> None:
    (tmp_path / "t.csv").write_text(table)
    rows = rows_of(meeting, tmp_path / "t.csv")
    assert {i: (u.text, u.n_samples, u.seconds) for i, u in rows.items()} == {
        "meeting-0000000-0001000": ("a", 8_000, 1.0),
        "meeting-0001000-0002000": ("b", 8_000, 1.0),
        "meeting-0002000-0003000": ("c", 8_000, 1.0),
    }


OUTSIDE = [
    {"offset": 2.5, "duration": 1.0},
    {"start": 0, "end": 3000},
    {"start": 7},
    {"duration": 30.0},
    {"path": "meeting.wav", "audio_filepath": None, "duration": 1.0},
]


@pytest.mark.parametrize("columns", OUTSIDE)
def test_a_piece_that_is_not_there_is_a_failure(meeting: Path, tmp_path: Path, columns) -> None:
    row = {"audio_filepath": "meeting.wav", "text": "words", **columns}
    if "path" in columns:
        del row["audio_filepath"]
    (found,) = rows_of(meeting, write_jsonl(tmp_path / "t.jsonl", [row])).values()
    assert not found.is_complete
    assert "3.00 s" in found.note


REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([{"start_ms": 100}], "row 1, column start_ms: a place in the file that is not in seconds"),
    ([{"start": 0, "end": 1}, {"frame_offset": 8000, "num_frames": 5}], "row 2, column frame_offset"),
    ([{"start": "soon"}], "row 1, column start: 'soon' is no time"),
    ([{"start": -1, "end": 1}], "row 1, column start: '-1' is no time"),
    ([{"start": 1, "begin": 2}], "row 1, column begin: says the start too, beside start"),
    ([{"start": 2, "end": 1}], "row 1: the piece ends before it begins"),
    ([{"text": "one reading"}, {"text": "another"}], "rows 1 and 2 name one file, meeting.wav, with other words"),
    ([{"start": 1, "end": 2}, {"start": 1, "end": 2, "text": "b"}], "rows 1 and 2 name one file"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), REFUSED)
def test_what_can_not_be_obeyed_names_row_and_column(
    meeting: Path, tmp_path: Path, rows, message
) -> None:
    table = [{"audio": "meeting.wav", "text": "words", **row} for row in rows]
    with pytest.raises(OmniError, match=message):
        rows_of(meeting, write_jsonl(tmp_path / "t.jsonl", table))


def test_a_channel_is_a_matter_of_several(meeting: Path, tmp_path: Path) -> None:
    row = {"audio": "meeting.wav", "text": "words", "channel": 0}
    assert spans(meeting, write_jsonl(tmp_path / "t.jsonl", [row])) == {"words": (0.0, 0.0, "")}
    record(meeting / "call.wav", channels=2)
    table = write_jsonl(tmp_path / "t.jsonl", [row, {**row, "audio": "call.wav"}])
    with pytest.raises(OmniError, match=r"row 2, column channel: one channel of call\.wav"):
        rows_of(meeting, table)


def test_a_row_that_is_said_twice_counts_once(meeting: Path, tmp_path: Path, capsys) -> None:
    row = {"audio": "meeting.wav", "text": "words"}
    table = write_jsonl(tmp_path / "t.jsonl", [row, {**row, "audio": "./meeting.wav"}])
    assert list(rows_of(meeting, table)) == ["meeting"]
    assert "1 rows of the table say again" in capsys.readouterr().err


def test_a_table_is_a_selection(tmp_path: Path, capsys) -> None:
    corpus = recordings(tmp_path / "c", *(f"u{i}.wav" for i in range(110)))
    table = tmp_path / "train.tsv"
    table.write_text("client_id\tpath\tsentence\nabc\tu0.wav\tHello\nabc\tu1.wav\tWorld\n")
    assert listing(corpus, table) == {"u0": "Hello", "u1": "World"}
    assert capsys.readouterr().err == "left out: 108 files of the folder are not in the table\n"
    five = write_jsonl(tmp_path / "x.jsonl", [{"path": f"u{i}", "text": "a"} for i in range(5)])
    assert len(listing(corpus, five)) == 5


OTHER = [
    {"audio": "u0.wav", "path": "u1.wav"},
    {"path": "u0", "audio": {"path": "u1.wav", "bytes": None}},
    {"audio_filepath": "u0.wav", "wav": "sub/u0.wav"},
    {"audio": "u0.wav", "file": "/on/another/machine/u1.wav"},
    {"audio": "/on/another/machine/u1.wav", "file_name": "u0.wav"},
]
SAME = [
    {"audio": "u0.wav", "path": "u0.wav"},
    {"audio": "u0.wav", "path": "./u0"},
    {"audio": {"path": "u0.wav"}, "file": "/on/another/machine/u0.flac"},
    {"audio": "u0.wav", "path": "", "file": None, "wav": 17},
    {"audio": "u0.wav", "path": "C:\\\\data\\\\u0.mp3"},
    {"audio": "sub/v.wav", "file_name": "v"},
]


@pytest.mark.parametrize("columns", OTHER)
def test_columns_that_name_two_files_are_refused(tmp_path: Path, columns: dict) -> None:
    corpus = recordings(tmp_path / "c", "u0.wav", "u1.wav", "sub/u0.wav", "sub/v.wav")
    rows = [{"audio": "u1.wav", "text": "b"}, {**columns, "text": "a"}]
    with pytest.raises(OmniError, match="row 2: column ") as caught:
        listing(corpus, write_jsonl(tmp_path / "t.jsonl", rows))
    assert all(f"column {name} names " in str(caught.value) or f"column {name} " in str(caught.value)
               for name in columns)  # fmt: skip


@pytest.mark.parametrize("columns", SAME)
def test_columns_that_name_one_file_in_two_ways_are_fine(tmp_path: Path, columns: dict) -> None:
    corpus = recordings(tmp_path / "c", "u0.wav", "u1.wav", "sub/v.wav")
    (text,) = listing(
        corpus, write_jsonl(tmp_path / "t.jsonl", [{**columns, "text": "a"}])
    ).values()
    assert text == "a"


def test_one_id_of_two_files_is_refused_where_the_table_names_both(tmp_path: Path) -> None:
    corpus = recordings(tmp_path / "c", "u0.wav", "u0.flac")
    rows = [{"audio": "u0.wav", "text": "a"}, {"audio": "u0.flac", "text": "b"}]
    with pytest.raises(OmniError, match="two audio files for u0: rows 1 and 2"):
        listing(corpus, write_jsonl(tmp_path / "t.jsonl", rows))
    assert rows_of(corpus, write_jsonl(tmp_path / "t.jsonl", rows[1:]))["u0"].audio == "u0.flac"
    (corpus / "u0.flac").unlink()
    with pytest.raises(OmniError, match="rows 1 and 2 name one file"):
        listing(corpus, write_jsonl(tmp_path / "t.jsonl", rows))
    assert listing(corpus, write_jsonl(tmp_path / "t.jsonl", rows[1:])) == {"u0": "b"}


def test_rows_without_a_file_are_failures(tmp_path: Path) -> None:
    corpus = recordings(tmp_path / "c", "u0.wav", "a/x.wav", "b/x.wav")
    names = ["u0.wav", "u9.wav", "/u9.wav", "../u9.wav", "C:\\x\\u9.wav", "x.wav", "", "a/../../c/"]
    rows = [{"audio": name, "text": "words"} for name in names if name]
    found = listing(corpus, write_jsonl(tmp_path / "t.jsonl", rows))
    assert found.pop("u0") == "words"
    assert set(found.values()) == {"<transcript without audio>"}
    assert len(found) == 6


@pytest.mark.parametrize("given", ["corpus", "../{0}/corpus", "link", "corpus/../corpus", "{1}"])
@pytest.mark.parametrize("named", ["{1}/u.wav", "u.wav", "./u.wav", "../corpus/u.wav", "{2}/u.wav"])
def test_any_spelling_of_a_path(tmp_path: Path, monkeypatch, given: str, named: str) -> None:
    corpus = recordings(tmp_path / "corpus", "u.wav")
    (tmp_path / "link").symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    places = (tmp_path.name, str(corpus), str(tmp_path / "link"))
    table = write_jsonl(tmp_path / "t.jsonl", [{"audio": named.format(*places), "text": "words"}])
    assert listing(Path(given.format(*places)), table) == {"u": "words"}


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("clips/a.mp3", "a.mp3"),
        ("wavs/LJ001-0001.wav", "LJ001-0001"),
        ("clips/a.wav", "clips\\a.wav"),
        ("x/Mu\u0308ller.wav", "x/M\u00fcller.wav"),
        ("x/M\u00fcller.wav", "x\\Mu\u0308ller.wav"),
        ("rec.2024.01.wav", "rec.2024.01"),
        ("a.flac", "a.wav"),
    ],
)
def test_names_as_corpora_have_them(tmp_path: Path, there: str, named: str) -> None:
    corpus = recordings(tmp_path / "c", there)
    table = write_jsonl(tmp_path / "t.jsonl", [{"audio": named, "text": "words"}])
    assert list(listing(corpus, table).values()) == ["words"]


def test_paths_relative_to_the_table(tmp_path: Path) -> None:
    corpus = recordings(tmp_path / "c" / "data" / "deep", "u.wav")
    (tmp_path / "away").mkdir()
    os.symlink(corpus, tmp_path / "away" / "link")
    for folder, name in (
        ("c", "data/deep/u.wav"),
        ("c/data/deep", "u.wav"),
        ("away", "link/u.wav"),
    ):
        table = write_jsonl(tmp_path / folder / "t.jsonl", [{"audio": name, "text": "words"}])
        assert listing(tmp_path / "c" / "data" / "deep", table) == {"u": "words"}


@given(st.text())
def test_no_name_of_a_column_is_too_odd(name: str) -> None:
    assert is_wanted(name) in (True, False)


KALDI = {
    "wav.scp": "rec1 {0}/meeting.wav\nrec2 {0}/meeting.wav\n",
    "text": "spk1-u1 hello there\nspk1-u2\tgood bye\n",
    "segments": "spk1-u1 rec1 0.5 1.5\nspk1-u2 rec1 1.5 -1\n",
    "utt2spk": "spk1-u1 spk1\nspk1-u2 spk1\n",
    "spk2gender": "spk1 f\n",
}


def kaldi(folder: Path, corpus: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in {**KALDI, **{k.replace("_", "."): v for k, v in files.items()}}.items():
        (folder / name).write_text(content.format(corpus))
    return folder


def test_a_kaldi_folder_is_read(meeting: Path, tmp_path: Path) -> None:
    folder = kaldi(tmp_path / "k", meeting)
    for name in ("", "text", "wav.scp"):
        rows = folder_manifest(meeting, "talks", str(folder / name)).utterances
        assert [(u.id, u.text, u.start, u.length, u.speaker, u.sex) for u in rows] == [
            ("spk1-u1", "hello there", 0.5, 1.0, "spk1", "F"),
            ("spk1-u2", "good bye", 1.5, 0.0, "spk1", "F"),
        ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav_scp": "rec1 sph2pipe -f wav x.sph |\n"}, "row 1, column 2: a command"),
        ({"wav_scp": "rec1 raw.ark:17\n"}, "row 1, column 2: no file"),
        ({"wav_scp": "other x.wav\n"}, "no line for rec1, of spk1-u1"),
        ({"segments": "spk1-u1 rec1 0.5\n"}, "row 1: wanted are"),
        ({"segments": "other rec1 0 1\n"}, "spk1-u1 of text has no line there"),
        ({"text": "\n"}, "no transcripts there"),
    ],
)
def test_a_kaldi_folder_that_can_not_be_obeyed(
    meeting: Path, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(OmniError, match=message):
        folder_manifest(meeting, "talks", str(kaldi(tmp_path / "k", meeting, **files)))


def cut(**more: Any) -> dict[str, Any]:
    said = {
        "id": "s1",
        "recording_id": "r",
        "start": 0.0,
        "duration": 1.0,
        "text": "words",
        "speaker": "ann",
    }
    sources = [{"type": "file", "channels": [0], "source": "meeting.wav"}]
    recording = {
        "id": "r",
        "sources": sources,
        "sampling_rate": 8000,
        "num_samples": 24000,
        "duration": 3.0,
    }
    return {
        "id": "c1", "start": 1.0, "duration": 1.0, "channel": 0, "supervisions": [said],
        "recording": recording, "type": "MonoCut", **more,
    }  # fmt: skip


def test_cuts_of_lhotse_are_read(meeting: Path, tmp_path: Path) -> None:
    (row,) = rows_of(meeting, write_jsonl(tmp_path / "c.jsonl", [cut()])).values()
    assert (row.id, row.start, row.length, row.text, row.speaker) == (
        "c1",
        1.0,
        1.0,
        "words",
        "ann",
    )
    said = cut()["supervisions"][0]
    two = [{**said, "text": "a"}, {**said, "id": "s2", "start": 1.0, "duration": 0.5, "text": "b"}]
    rows = rows_of(
        meeting, write_jsonl(tmp_path / "c.jsonl", [cut(duration=2.0, supervisions=two)])
    )
    assert {i: (u.start, u.length, u.text) for i, u in rows.items()} == {
        "s1": (1.0, 1.0, "a"),
        "s2": (2.0, 0.5, "b"),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "MixedCut", "tracks": []}, "row 1, column type: MixedCut"),
        ({"supervisions": []}, "row 1, column supervisions: nothing says"),
        ({"supervisions": [{"text": ["a"]}]}, "row 1, column supervisions: text and speaker"),
        ({"recording": None}, "row 1, column recording: a recording"),
        ({"recording": {**cut()["recording"], "transforms": [{"name": "Speed"}]}}, "column recording.transforms"),
        ({"recording": {"sources": [{"type": "command", "source": "x |"}]}}, "column recording.sources"),
        ({"start": "x"}, "row 1, column start: no time"),
        ({"channel": [0, 1]}, "row 1, column channel: several"),
        ({"id": None}, "row 1, column id"),
    ],
)  # fmt: skip
def test_cuts_that_can_not_be_obeyed(meeting: Path, tmp_path: Path, change, message: str) -> None:
    with pytest.raises(OmniError, match=message):
        rows_of(meeting, write_jsonl(tmp_path / "c.jsonl", [cut(**change)]))


_ANY = st.recursive(
    st.none() | st.integers(-2, 9) | st.floats() | st.sampled_from(["file", "meeting.wav", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "start", "text", "source", "sources"]), inner)
    ),
)


@given(st.dictionaries(st.sampled_from([*cut()]), _ANY, max_size=3))
def test_a_cut_of_any_types_is_read_or_refused(change: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        record(Path(name) / "meeting.wav", 3.0, 8_000)
        table = Path(name) / "c.jsonl"
        table.write_text(json.dumps(cut(**change)) + "\n")
        try:
            (row,) = folder_manifest(Path(name), "talks", str(table)).utterances
        except OmniError:
            return
    assert row.audio in ("meeting.wav", "")
