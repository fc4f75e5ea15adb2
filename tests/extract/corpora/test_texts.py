"""Transcripts in text files of any origin: encodings, ends of lines, what stands behind an id.

.venv/bin/python -m pytest tests/extract/corpora/test_texts.py
"""

import codecs
from pathlib import Path

import pytest
from folder_kit import listing, record, recordings, told
from hypothesis import given
from hypothesis import strategies as st

from extract.corpora.librispeech import librispeech_manifest, read_speakers
from extract.corpora.texts import read_lines, split_lines
from omni.errors import OmniError

# Where Python's splitlines breaks and a file's lines don't end.
NO_ENDS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_with_a_mark_is_read_without_it(tmp_path: Path, encoding: str) -> None:
    recordings(tmp_path, "u0.wav", "u1.wav")
    (tmp_path / "u0.txt").write_bytes("Hällo wörld".encode(encoding))
    (tmp_path / "x.trans.txt").write_bytes("u1 Drei\n".encode(encoding))
    assert listing(tmp_path) == {"u0": "Hällo wörld", "u1": "Drei"}


@pytest.mark.parametrize(
    "data",
    [
        "It’s a café".encode("cp1252"),
        "Müller".encode("latin-1"),
        "Hello".encode("utf-16-le"),
        codecs.BOM_UTF16_LE + b"H",
        "привет".encode("cp1251"),
    ],
)
def test_another_encoding_is_its_own_failure_and_not_guessed(tmp_path: Path, data: bytes) -> None:
    recordings(tmp_path, "u0.wav", "u1.wav")
    (tmp_path / "u0.txt").write_bytes(data)
    (tmp_path / "u1.txt").write_text("fine")
    found = listing(tmp_path)
    assert found["u1"] == "fine"
    assert found["u0"].startswith("<u0.txt: line 1 ")
    assert "iconv" in found["u0"]


@pytest.mark.parametrize("reader", ["folder", "librispeech"])
def test_a_line_in_another_encoding_is_its_own_failure(tmp_path: Path, reader: str) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x" / "1" / "2"
    recordings(tree, "u0.wav", "u1.wav")
    (tree / "1-2.trans.txt").write_bytes(b"u0 caf\xe9\r\nu1 fine\r\n")
    found = listing(tree) if reader == "folder" else told(librispeech_manifest(tmp_path, "dev-x"))
    assert found["u1"] == "fine"
    assert "not UTF-8 (byte 0xe9)" in found["u0"]


def test_utf_16_without_a_mark_names_the_file(tmp_path: Path) -> None:
    recordings(tmp_path, "u0.wav")
    (tmp_path / "x.trans.txt").write_bytes("u0 words\n".encode("utf-16-le"))
    with pytest.raises(OmniError, match=r"zero byte.*x\.trans\.txt.*UTF-16"):
        listing(tmp_path)


@pytest.mark.parametrize(
    "data", [b"11 | F | x | 1 | Ren\xe9\n12|m|x|1|B\n", b"\xef\xbb\xbf11|F|\r\n12|M|"]
)
def test_speakers_need_no_encoding(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "SPEAKERS.TXT").write_bytes(data)
    assert read_speakers(tmp_path / "SPEAKERS.TXT") == {"11": "F", "12": "M"}


@pytest.mark.parametrize("blank", ["\t", "\u00a0", "  ", " \t ", "\u3000"])
@pytest.mark.parametrize("reader", ["folder", "librispeech"])
def test_any_white_space_stands_behind_an_id(tmp_path: Path, blank: str, reader: str) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x" / "1" / "2"
    recordings(tree, "u0.wav", "u1.wav")
    lines = f"u0{blank}HELLO ZERO\nu1{blank}HELLO ONE\n"
    (tree / "1-2.trans.txt").write_text(lines, encoding="utf-8")
    found = listing(tree) if reader == "folder" else told(librispeech_manifest(tmp_path, "dev-x"))
    assert found == {"u0": "HELLO ZERO", "u1": "HELLO ONE"}


@pytest.mark.parametrize("character", NO_ENDS)
@pytest.mark.parametrize("reader", ["folder", "librispeech"])
def test_no_other_character_ends_a_line(tmp_path: Path, character: str, reader: str) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x" / "1" / "2"
    recordings(tree, "u0.wav", "u1.wav")
    text = f"HELLO{character}u1 ZERO"
    (tree / "1-2.trans.txt").write_bytes(f"u0 {text}\r\nu1 ONE".encode())
    found = listing(tree) if reader == "folder" else told(librispeech_manifest(tmp_path, "dev-x"))
    assert found == {"u0": text, "u1": "ONE"}


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))))
def test_lines_come_back_as_they_were(lines: list[str]) -> None:
    clean = [line.removesuffix("\r").removeprefix("\ufeff") for line in lines]
    assert split_lines("\n".join(clean)) == (clean or [""])
    assert split_lines("\r\n".join(clean)) == (clean or [""])


def test_files_joined_with_their_marks(tmp_path: Path) -> None:
    (tmp_path / "x.trans.txt").write_bytes(b"\xef\xbb\xbfa ONE\n\xef\xbb\xbfb TWO\n\n \nc\n")
    found = {i: t.text for i, t in read_lines(tmp_path / "x.trans.txt")}
    assert found == {"a": "ONE", "b": "TWO", "c": ""}


def test_two_transcripts_of_one_recording_must_say_the_same(tmp_path: Path) -> None:
    recordings(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "x.trans.txt").write_text("a one\nb one\nc one\nc two\n")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("another")
    fault = "<two transcripts that differ>"
    assert listing(tmp_path) == {"a": "one", "b": fault, "c": fault}


def test_accents_are_one_character_or_two(tmp_path: Path) -> None:
    record(tmp_path / "Mu\u0308ller.wav")
    record(tmp_path / "Caf\u00e9.wav")
    (tmp_path / "M\u00fcller.txt").write_text("eins")
    (tmp_path / "x.trans.txt").write_text("Cafe\u0301 zwei\n", encoding="utf-8")
    assert list(listing(tmp_path).values()) == ["zwei", "eins"]


def test_a_text_that_can_not_be_read_is_a_failure(tmp_path: Path) -> None:
    recordings(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.txt").symlink_to("nowhere.txt")
    (tmp_path / "b.txt").write_text("fine")
    assert listing(tmp_path)["b"] == "fine"
    assert "a.txt: can't be read" in listing(tmp_path)["a"]
