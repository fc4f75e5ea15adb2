"""A text goes with its own recording or with none: names that fit two files, lists of one line, pipes.

.venv/bin/python -m pytest tests/extract/corpora/test_apart.py
"""

import os
from pathlib import Path

import pytest
from folder_kit import listing, record, recordings, told

from extract.corpora.entries import read_entries
from extract.corpora.folder import folder_manifest
from extract.corpora.librispeech import librispeech_manifest, read_speakers
from omni.errors import OmniError
from omni.formats.manifest import Problem

COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"  # one letter, as two systems write it


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["u0.wav", "u0.flac"], "u0"),
        (["u0.wav", "u0.flac"], "u0.mp3"),
        (["clips/u0.wav", "wavs/u0.wav"], "u0.wav"),
        (["clips/u0.wav", "clips/u0.flac"], "u0"),
        (["u0.wav", "u0.flac", "clips/u0.wav"], "u0"),
        (["d/u0.wav", "d/u0.WAV"], "d\\u0"),
    ],
)
def test_a_name_that_fits_several_files_is_said_to(
    tmp_path: Path, files: list[str], name: str
) -> None:
    recordings(tmp_path / "c", "other.wav", *files)
    table = tmp_path / "t.csv"
    table.write_text(f"audio,text\nother.wav,one\n{name},two\n")
    rows = [u for u in folder_manifest(tmp_path / "c", "talks", str(table)).utterances if u.problem]
    assert [u.problem for u in rows] == [Problem.NO_AUDIO]
    assert f"{name} fits" in rows[0].note
    assert files[0] in rows[0].note
    assert files[1] in rows[0].note


def test_a_table_of_names_that_all_fit_several_files_says_so(tmp_path: Path) -> None:
    recordings(tmp_path / "c", "u0.wav", "u0.flac")
    table = tmp_path / "t.csv"
    table.write_text("audio,text\nu0,one\n")
    assert "fits 2 files" in listing(tmp_path / "c", table)["u0"]


@pytest.mark.parametrize("texts", [(COMPOSED,), (DECOMPOSED,), (COMPOSED, DECOMPOSED)])
@pytest.mark.parametrize("layout", ["beside", "trans", "librispeech"])
def test_names_that_differ_by_their_accents_alone_keep_their_own_texts(
    tmp_path: Path, layout: str, texts: tuple[str, ...]
) -> None:
    folder = tmp_path / "dev-x"
    recordings(folder, f"{COMPOSED}.wav", f"{DECOMPOSED}.wav")
    if layout == "beside":
        for name in texts:
            (folder / f"{name}.txt").write_text(ascii(name))
    else:
        lines = [f"{name} {name!a}\n" for name in texts]
        (folder / "a.trans.txt").write_text("".join(lines), encoding="utf-8")
    is_tree = layout == "librispeech"
    found = told(librispeech_manifest(tmp_path, "dev-x")) if is_tree else listing(folder)
    assert found == {
        name: ascii(name) if name in texts else "<audio without transcript>"
        for name in (COMPOSED, DECOMPOSED)
    }


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("c/a.trans.txt", ["u0 hello", "u1 world"]),
        ("t.csv", ["audio,text", "u0.wav,a", "u1.wav,b"]),
        ("t.tsv", ["audio\ttext", "u0.wav\ta", "u1.wav\tb"]),
        ("metadata.csv", ["u0|a", "u1|b"]),
        ("metadata.csv", ["u0|a|b"]),
        ("kaldi/text", ["u0 a", "u1 b"]),
        ("kaldi/wav.scp", ["u0 u0.wav", "u1 u1.wav"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("last", ["\r", "", "\r\n"])
def test_a_list_whose_lines_never_end_is_refused(
    tmp_path: Path, name: str, lines: list[str], encoding: str, last: str
) -> None:
    if len(lines) == 1:
        lines = [*lines, "u1|c|d"]
    folder = recordings(tmp_path / "c", "u0.wav", "u1.wav")
    path = tmp_path / name
    if path.parent.name == "kaldi":
        path.parent.mkdir()
        (path.parent / "text").write_text("u0 a\nu1 b\n")
        (path.parent / "wav.scp").write_text("u0 u0.wav\nu1 u1.wav\n")
    path.write_bytes(("\r".join(lines) + last).encode(encoding))
    in_table = path.parent if path.parent.name == "kaldi" else path
    with pytest.raises(OmniError, match="carriage return"):
        listing(folder, "auto" if path.parent == folder else in_table)


def test_a_single_line_may_end_in_anything(tmp_path: Path) -> None:
    recordings(tmp_path, "u0.wav")
    (tmp_path / "a.trans.txt").write_bytes(b"u0 hello\r")
    assert listing(tmp_path) == {"u0": "hello"}
    (tmp_path / "a.trans.txt").write_bytes("u0 \u010d".encode("utf-16"))  # a byte of it is 0x0d
    assert listing(tmp_path) == {"u0": "\u010d"}
    (tmp_path / "a.trans.txt").unlink()
    (tmp_path / "u0.txt").write_bytes(b"a text\rof two lines")
    assert listing(tmp_path) == {"u0": "a text of two lines"}


def test_speakers_whose_lines_never_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "SPEAKERS.TXT").write_bytes(b"11 | F | x\r12 | M | x\r")
    with pytest.raises(OmniError, match="carriage return"):
        read_speakers(tmp_path / "SPEAKERS.TXT")


@pytest.mark.parametrize("url", ["https://x.org/t.csv", "s3://b/t.tsv", "HF://d/x.parquet"])
def test_a_table_at_an_url_is_told_to_be_downloaded(tmp_path: Path, url: str) -> None:
    record(tmp_path / "u0.wav")
    with pytest.raises(OmniError, match="download it") as raised:
        folder_manifest(tmp_path, "talks", url)
    assert raised.value.where == url
    with pytest.raises(OmniError, match="no transcripts in a folder"):
        read_entries(tmp_path)


def test_a_pipe_beside_the_audio_is_not_waited_for(tmp_path: Path) -> None:
    recordings(tmp_path, "u0.wav", "u1.wav", "u2.wav")
    (tmp_path / "u1.txt").write_text("one")
    os.mkfifo(tmp_path / "u0.txt")
    (tmp_path / "u2.txt").symlink_to("u0.txt")
    found = listing(tmp_path)
    assert found["u1"] == "one"
    assert "no regular file" in found["u0"]
    assert "no regular file" in found["u2"]
    os.mkfifo(tmp_path / "a.trans.txt")
    with pytest.raises(OmniError, match="no regular file"):
        listing(tmp_path)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.csv.gz", "t.parquet"])
def test_a_table_that_is_a_pipe_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OmniError, match="no regular file"):
        read_entries(tmp_path / name)
