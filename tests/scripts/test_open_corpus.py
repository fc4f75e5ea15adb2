"""The open-vocabulary corpus: splits that share no sentence, a plan that only grows, speakable text."""

import shutil
import sys
from itertools import product
from pathlib import Path
from shutil import which

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import make_open_corpus as corpus
from libri_tree import remove_unlisted, write_audio, write_tables
from public_text import NOVELS

NAMES = ["".join(letters) for letters in product("abcdefghij", repeat=3)]
LINES = [(f"say, the name {name}", f"say the name {name}") for name in NAMES]


def test_more_hours_keep_the_clips_of_fewer_and_never_touch_the_heldout_ones() -> None:
    short = corpus.plan(LINES, hours=0.05, n_dev=10, n_test=10)
    long = corpus.plan(LINES, hours=0.2, n_dev=10, n_test=10)
    assert len(long) > len(short) > 21
    assert set(short) < set(long)
    texts = {split: {c.text for c in long if c.split == split} for split in _splits(long)}
    assert len(texts["train-open"] | texts["dev-open"] | texts["test-open-voice"]) == len(long)
    assert len({clip.id for clip in long}) == len(long)


def test_the_unheard_voice_speaks_in_its_own_split_alone() -> None:
    clips = corpus.plan(LINES, hours=0.2, n_dev=10, n_test=10)
    voices = {s: {c.voice.name for c in clips if c.split == s} for s in _splits(clips)}
    assert voices["test-open-voice"] == {"awb"}
    assert (
        voices["dev-open"] <= voices["train-open"] == {voice.name for _, voice, _ in corpus.KNOWN}
    )


@pytest.mark.skipif(
    which("bible") is None or not NOVELS.is_file(), reason="bible-kjv, r-cran-janeaustenr missing"
)
def test_sentences_are_plain_words_of_the_wanted_length() -> None:
    lines = corpus.usable_sentences()
    assert len(lines) > 30_000
    assert len({text for _, text in lines}) == len(lines)
    for spoken, text in lines:
        assert corpus.SHORTEST <= len(text.split()) <= corpus.LONGEST
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz' ")
        assert [w.strip("'") for w in spoken.replace(",", " ").split() if w.strip("'")] == [
            w.strip("'") for w in text.split()
        ]


@pytest.mark.skipif(which("flite") is None, reason="flite not installed")
def test_clips_and_tables_are_written_as_librispeech(tmp_path: Path) -> None:
    clips = corpus.plan(LINES, hours=0, n_dev=0, n_test=2)
    for clip in clips:
        write_audio(clip, tmp_path)
    hours = write_tables(clips, tmp_path)
    assert 0 < hours * 3600 < 60
    transcript = tmp_path / clips[0].path.with_name("8101-8101300.trans.txt")
    assert transcript.read_text().splitlines() == [f"{c.id} {c.text.upper()}" for c in clips]
    assert "8101 | M | test-open-voice" in (tmp_path / "SPEAKERS.TXT").read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [((0.2, 6, 5), (0.05, 6, 5)), ((0.1, 9, 9), (0.1, 2, 3)), ((0.1, 4, 4), (0.0, 0, 1))],
)
def test_a_folder_made_again_holds_what_its_list_says(
    tmp_path: Path, before: tuple[float, int, int], after: tuple[float, int, int]
) -> None:
    clip = ROOT / "manifests/demo/LibriSpeech/demo-heldout"
    some = next(clip.rglob("*.opus"))
    for hours, n_dev, n_test in (before, after):
        clips = corpus.plan(LINES, hours, n_dev, n_test)
        for one in clips:
            (tmp_path / one.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(some, tmp_path / one.path)
        (tmp_path / "train-open" / "notes.md").parent.mkdir(exist_ok=True)
        (tmp_path / "train-open" / "notes.md").write_text("somebody's own")
        write_tables(clips, tmp_path)
        remove_unlisted(clips, tmp_path, corpus.SPLITS)
    listed = {
        line.split()[0]
        for p in tmp_path.rglob("*.trans.txt")
        for line in p.read_text().splitlines()
    }
    assert {p.stem for p in tmp_path.rglob("*.opus")} == listed == {one.id for one in clips}
    assert (tmp_path / "train-open" / "notes.md").is_file()
    assert all(any(p.iterdir()) for p in tmp_path.rglob("*") if p.is_dir())


def _splits(clips: list[corpus.Clip]) -> set[str]:
    return {clip.split for clip in clips}
