"""The open-vocabulary corpus: splits that share no sentence, a plan that only grows, speakable text."""

import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import libri_tree
import make_demo_corpus as demo
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


def words_of(root: Path) -> dict[str, str]:
    """What each clip says, by id: the stand-ins for audio below hold it as text."""
    return {p.stem: p.read_text() for p in root.rglob("*.opus")}


def listed_in(root: Path) -> dict[str, str]:
    lines = [line for p in root.rglob("*.trans.txt") for line in p.read_text().splitlines()]
    return {key: text for key, _, text in (line.partition(" ") for line in lines)}


class HereAndNow:
    """A process pool that has no processes."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> "HereAndNow":
        return self

    def __exit__(self, *_: object) -> None: ...
    def map(self, function, items, chunksize: int):
        return map(function, items)


@pytest.fixture
def written_not_spoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Clips are files that hold their text; the ids of those made, in order."""
    made: list[str] = []

    def write(clip: corpus.Clip, root: Path) -> None:
        (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
        (root / clip.path).write_text(clip.text.upper())
        made.append(clip.id)

    monkeypatch.setattr(libri_tree.sf, "info", lambda path: SimpleNamespace(duration=1.0))
    monkeypatch.setattr(corpus, "usable_sentences", lambda: LINES)
    monkeypatch.setattr(corpus, "ProcessPoolExecutor", HereAndNow)
    for script in (corpus, demo):
        monkeypatch.setattr(script, "write_audio", write)
    return made


def make(root: Path, hours: float, dev: int, test: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    options = {"--out": root, "--hours": hours, "--dev": dev, "--test": test}
    words = [str(word) for option in options.items() for word in option]
    monkeypatch.setattr(sys, "argv", ["make_open_corpus.py", *words])
    assert corpus.main() == 0
    return root / "LibriSpeech"


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        ((0.2, 6, 5), (0.05, 6, 5), False),  # fewer hours
        ((0.05, 6, 5), (0.2, 6, 5), True),
        ((0.1, 6, 5), (0.1, 6, 5), False),
        ((0.1, 9, 9), (0.1, 2, 3), True),  # the same files, other sentences in them
        ((0.1, 2, 3), (0.1, 9, 9), True),
        ((0.1, 4, 4), (0.0, 0, 1), True),
        ((0.1, 4, 4), (0.0, 4, 0), False),
    ],
)
def test_the_script_leaves_clips_that_say_what_their_transcripts_say(
    tmp_path: Path,
    before: tuple[float, int, int],
    after: tuple[float, int, int],
    anew: bool,
    written_not_spoken: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tmp_path, *before, monkeypatch)
    written_not_spoken.clear()
    root = make(tmp_path, *after, monkeypatch)
    planned = {c.id: c.text.upper() for c in corpus.plan(LINES, *after)}
    assert words_of(root) == listed_in(root) == planned
    assert bool(written_not_spoken) is anew


def test_a_killed_run_of_another_plan_leaves_no_wrong_text(
    tmp_path: Path, written_not_spoken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = corpus.write_audio

    def killed(clip: corpus.Clip, root: Path) -> None:
        if len(written_not_spoken) == 20:
            raise KeyboardInterrupt
        write(clip, root)

    monkeypatch.setattr(corpus, "write_audio", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, 0.1, 9, 9, monkeypatch)
    monkeypatch.setattr(corpus, "write_audio", write)
    root = make(tmp_path, 0.1, 2, 3, monkeypatch)
    planned = {c.id: c.text.upper() for c in corpus.plan(LINES, 0.1, 2, 3)}
    assert words_of(root) == listed_in(root) == planned


@pytest.mark.parametrize("kept", [1, 2, 250, 499])
def test_the_demo_made_again_holds_what_its_list_says(
    tmp_path: Path, kept: int, written_not_spoken: list[str]
) -> None:
    whole = demo.plan()
    demo.make(whole, tmp_path)
    fewer = [replace(clip, text=f"{clip.text} anew") for clip in whole[:1]] + whole[1:kept]
    others = [clip for clip in whole if clip.split not in {c.split for c in fewer}]
    written_not_spoken.clear()
    demo.make(fewer, tmp_path, again=False)
    assert words_of(tmp_path) == {c.id: c.text.upper() for c in [*fewer, *others]}
    assert written_not_spoken == [whole[0].id]


def _splits(clips: list[corpus.Clip]) -> set[str]:
    return {clip.split for clip in clips}
