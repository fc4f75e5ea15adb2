"""What a folder holds: links, leftovers of other systems, names that are mere bytes, any suffix.

.venv/bin/python -m pytest tests/extract/corpora/test_walk.py
"""

import os
from pathlib import Path

import pytest
from folder_kit import listing, record, recordings, told
from hypothesis import given
from hypothesis import strategies as st

from extract.corpora.folder import folder_manifest
from extract.corpora.librispeech import librispeech_manifest
from extract.corpora.walk import tidy_id, walk
from omni.errors import OmniError
from omni.formats.files import safe_id
from omni.formats.manifest import Problem, read_manifest, write_manifest


def beside(folder: Path, *names: str) -> Path:
    """Recordings, each with its name as its words beside it."""
    for name in names:
        record(folder / name).with_suffix(".txt").write_text(f"words of {Path(name).stem}")
    return folder


def test_a_linked_folder_is_entered_and_no_link_loops(tmp_path: Path) -> None:
    corpus = beside(tmp_path / "c", "spk1/a.wav")
    beside(tmp_path / "away", "b.wav", "deep/c.wav")
    (corpus / "spk2").symlink_to("../away")
    (corpus / "spk1" / "up").symlink_to("..")
    (corpus / "self").symlink_to(".")
    (tmp_path / "away" / "back").symlink_to(corpus)
    (tmp_path / "away" / "above").symlink_to(tmp_path)
    ids = {"spk1/a": "words of a", "spk2/b": "words of b", "spk2/deep/c": "words of c"}
    assert listing(corpus) == ids
    (tmp_path / "link").symlink_to(corpus)
    assert listing(tmp_path / "link") == ids


def test_a_folder_that_is_linked_twice_is_listed_once(tmp_path: Path) -> None:
    corpus = beside(tmp_path / "c", "z/a.wav")
    (corpus / "a-link").symlink_to("z")
    assert listing(corpus) == {"z/a": "words of a"}


@pytest.mark.parametrize("linked", ["11", "11/5", "11/5/11-5.trans.txt", "11/5/11-5-0000.flac"])
def test_a_librispeech_tree_may_hold_links(tmp_path: Path, linked: str) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x"
    record(tree / "11" / "5" / "11-5-0000.flac")
    (tree / "11" / "5" / "11-5.trans.txt").write_text("11-5-0000 HELLO\n")
    (tree / linked).rename(tmp_path / "away")
    (tree / linked).symlink_to(tmp_path / "away")
    assert told(librispeech_manifest(tmp_path, "dev-x")) == {"11-5-0000": "HELLO"}


def test_a_link_that_leads_nowhere_is_a_failure(tmp_path: Path, capsys) -> None:
    corpus = beside(tmp_path, "a.wav")
    (corpus / "c.wav").symlink_to("/nonexistent/c.wav")
    (corpus / "c.txt").write_text("words of c")
    (corpus / "d.wav").symlink_to("d.wav")
    os.mkfifo(corpus / "e.wav")
    rows = {u.id: u for u in folder_manifest(corpus, "talks").utterances}
    assert {i: u.problem for i, u in rows.items()} == {
        "a": Problem.NONE, "c": Problem.NO_AUDIO, "d": Problem.NO_AUDIO, "e": Problem.NO_AUDIO
    }  # fmt: skip
    assert rows["c"].note == rows["d"].note == "a link that leads nowhere"
    assert rows["e"].note == "no regular file"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "3 of 4 utterances can't be had, the first: c: a link that leads nowhere" in said


def test_leftovers_of_macos_are_passed_over(tmp_path: Path, capsys) -> None:
    corpus = beside(tmp_path, "a.wav")
    for name in (
        "._a.wav",
        "._a.txt",
        "__MACOSX/a.wav",
        "__MACOSX/._a.wav",
        "__MACOSX/x.trans.txt",
    ):
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X\xff")
    assert listing(corpus) == {"a": "words of a"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "suffix", [".WAV", ".wave", ".Flac", ".oga", ".aifc", ".AIF", ".w64", ".au", ".caf", ".opus"]
)
def test_recordings_of_any_suffix_in_any_case(tmp_path: Path, suffix: str) -> None:
    record(tmp_path / f"a{suffix}")
    (tmp_path / "a.TXT").write_text("words")
    assert listing(tmp_path) == {"a": "words"}


@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".webm", ".wma", ".M4A"])
def test_a_recording_that_is_none_is_a_row_and_named(tmp_path: Path, suffix: str, capsys) -> None:
    (tmp_path / f"b{suffix}").write_bytes(b"\0" * 64)
    (tmp_path / "b.txt").write_text("words of b")
    (row,) = folder_manifest(tmp_path, "talks").utterances
    assert (row.id, row.problem, row.audio) == ("b", Problem.UNREADABLE, f"b{suffix}")
    assert "1 of 1 utterances can't be had, the first: b: " in capsys.readouterr().err


def test_texts_of_no_recording_are_counted(tmp_path: Path, capsys) -> None:
    beside(tmp_path, "a.wav")
    (tmp_path / "README.txt").write_text("about this corpus")
    assert listing(tmp_path) == {"a": "words of a"}
    assert capsys.readouterr().err == "left out: 1 text files belong to no recording\n"


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"caf\xe9/u.wav", b"\xff.WAV"])
def test_a_name_that_is_no_text_is_a_failure_of_its_own(tmp_path: Path, name: bytes) -> None:
    beside(tmp_path, "fine.wav")
    path = tmp_path / os.fsdecode(name)
    record(tmp_path / "x.wav").rename((path.parent.mkdir(exist_ok=True), path)[1])
    manifest = folder_manifest(tmp_path, "talks")
    bad, fine = sorted(manifest.utterances, key=lambda u: u.id == "fine")
    assert (fine.problem, fine.text) == (Problem.NONE, "words of fine")
    assert bad.problem == Problem.NO_AUDIO
    assert "not UTF-8" in bad.note
    assert bad.id in ("caf%E9", "caf%E9/u", "%FF")
    write_manifest(manifest, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == manifest


@pytest.mark.parametrize("name", ["\\x.wav", "a\\..\\b.wav", "new\nline.wav", "[1].wav"])
def test_a_name_of_odd_characters_stops_nobody(tmp_path: Path, name: str) -> None:
    beside(tmp_path, "fine.wav", name)
    rows = folder_manifest(tmp_path, "talks").utterances
    assert len({u.id for u in rows}) == 2
    assert {u.audio for u in rows} == {"fine.wav", name}
    assert not any(u.problem for u in rows)


def test_a_corpus_whose_own_name_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "c", "a.wav").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    with pytest.raises(OmniError, match=r"the folder's name is not UTF-8 .*caf%E9"):
        folder_manifest(folder, "talks", "none")
    with pytest.raises(OmniError, match="not UTF-8"):
        librispeech_manifest(folder, "dev-x")


@pytest.mark.parametrize(
    "names",
    [("a.flac", "a.wav"), ("a.FLAC", "a.flac"), ("a.mp3", "a.m4a")],
)
def test_two_files_of_one_id_are_refused_by_either_reader(tmp_path: Path, names) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x" / "11" / "5"
    for name in names:
        record(tree / name.replace("m4a", "wav")).rename(tree / name)
    (tree / "x.trans.txt").write_text("a HELLO\n")
    with pytest.raises(OmniError, match=r"two audio files for a \(.*a\..* and .*a\."):
        librispeech_manifest(tmp_path, "dev-x")
    with pytest.raises(OmniError, match="two audio files for a"):
        folder_manifest(tree, "talks")


def test_one_stem_in_two_chapters_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x"
    recordings(tree, "11/5/11-5-0000.flac", "11/6/11-5-0000.flac")
    with pytest.raises(OmniError, match="two audio files for 11-5-0000"):
        librispeech_manifest(tmp_path, "dev-x")


@pytest.mark.parametrize("suffix", [".mp3", ".FLAC", ".ogg", ".wav"])
def test_a_librispeech_tree_of_another_kind_is_read(tmp_path: Path, suffix: str) -> None:
    tree = tmp_path / "LibriSpeech" / "dev-x" / "11" / "5"
    record(tree / f"11-5-0000{suffix}")
    (tree / "11-5.trans.txt").write_text("11-5-0000 HELLO\n")
    assert told(librispeech_manifest(tmp_path, "dev-x")) == {"11-5-0000": "HELLO"}


@given(st.text(st.sampled_from("ab./\\ "), min_size=1, max_size=12))
def test_a_tidied_name_is_an_id(name: str) -> None:
    assert safe_id(tidy_id(name.replace("\\", "/")))


def test_no_folder_can_be_walked_twice_at_once(tmp_path: Path) -> None:
    recordings(tmp_path, "b.wav", "a/c.wav", "a.wav")
    tree = walk(tmp_path)
    assert [tree.id_of(p) for p in tree.audio] == ["a/c", "a", "b"]
