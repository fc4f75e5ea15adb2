"""The committed demo corpus is what its script makes: counts, words, splits, audio."""

import re
import sys
from functools import cache
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import make_demo_corpus as demo
from fetch_voices import CACHE, PYTHON
from synthesis import RATE, read_clip

CORPUS = ROOT / "manifests" / "demo" / "LibriSpeech"
COUNTS = {"demo-train": 400, "demo-heldout": 60, "demo-heldout-voice": 40}
UNHEARD = {"9101", "9102", "9103", "9104", "9105"}


@cache
def _transcripts(split: str) -> dict[str, str]:
    """Text by utterance id, as the committed files say."""
    rows: dict[str, str] = {}
    for path in sorted((CORPUS / split).rglob("*.trans.txt")):
        for line in path.read_text().splitlines():
            key, text = line.split(" ", 1)
            assert key not in rows, f"{key} twice"
            rows[key] = text
    return rows


def _audio(key: str, split: str) -> Path:
    speaker, chapter, _ = key.split("-")
    return CORPUS / split / speaker / chapter / f"{key}.opus"


def _words(split: str) -> set[str]:
    return {word for text in _transcripts(split).values() for word in text.split()}


@pytest.mark.parametrize("split", COUNTS)
def test_counts_ids_and_files_agree(split: str) -> None:
    rows = _transcripts(split)
    assert len(rows) == COUNTS[split]
    assert all(re.fullmatch(r"\d{4}-\d{5}-\d{4}", key) for key in rows)
    files = {path.stem for path in (CORPUS / split).rglob("*.opus")}
    assert files == set(rows)
    assert all(_audio(key, split).exists() for key in rows)


def test_committed_files_are_what_the_script_plans() -> None:
    planned = {clip.id: (clip.split, clip.text.upper()) for clip in demo.plan()}
    committed = {
        key: (split, text) for split in COUNTS for key, text in _transcripts(split).items()
    }
    assert planned == committed


def test_heldout_sentences_are_never_trained_on_but_their_words_are() -> None:
    texts = [text for split in COUNTS for text in _transcripts(split).values()]
    assert len(set(texts)) == len(texts) == 500
    assert 50 <= len(_words("demo-train")) <= 60
    for split in ("demo-heldout", "demo-heldout-voice"):
        assert _words(split) <= _words("demo-train")
    counts = [
        sum(word in text.split() for text in _transcripts("demo-train").values())
        for word in _words("demo-train")
    ]
    assert min(counts) >= 30, "a word is too rare to be learned"


def test_speakers_file_lists_every_speaker_and_unheard_voices_stay_unheard() -> None:
    table: dict[str, dict[str, str]] = {}
    for line in (CORPUS / "SPEAKERS.TXT").read_text().splitlines():
        if not line.startswith(";"):
            speaker, sex, split, minutes, name = (field.strip() for field in line.split("|", 4))
            assert sex in {"F", "M"}
            assert float(minutes) > 0.1
            table.setdefault(speaker, {})[split] = name
    by_split = {split: {key.split("-")[0] for key in _transcripts(split)} for split in COUNTS}
    assert len(by_split["demo-train"]) >= 30
    assert by_split["demo-heldout"] <= by_split["demo-train"]
    assert by_split["demo-heldout-voice"] == UNHEARD
    assert set(table) == by_split["demo-train"] | UNHEARD
    assert table["9105"]["demo-heldout-voice"] == "flite awb"


def test_labels_are_what_is_planned() -> None:
    lines = (CORPUS / "LABELS.TSV").read_text().splitlines()
    rows = {line.split("\t")[0]: tuple(line.split("\t")[1:5]) for line in lines[1:]}
    assert rows == {clip.id: clip.labels for clip in demo.plan()}


def test_every_clip_decodes_and_holds_speech() -> None:
    seconds = []
    for split in COUNTS:
        for key in _transcripts(split):
            wave = read_clip(_audio(key, split))
            assert 0.45 < np.abs(wave).max() < 0.85, f"{key}: clipped or faint"
            assert np.sqrt(np.mean(wave**2)) > 0.03, f"{key}: nearly silent"
            seconds.append(len(wave) / RATE)
    assert min(seconds) > 1.7
    assert max(seconds) < 6


def test_tree_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 9_000_000


@pytest.mark.skipif(
    not (CACHE / PYTHON / "parselmouth").exists()
    or which("flite") is None
    or which("espeak-ng") is None,
    reason="scripts/fetch_voices.py, flite or espeak-ng was not run or installed",
)
def test_script_makes_the_committed_samples_again(tmp_path: Path) -> None:
    engines: dict[str, demo.Clip] = {}  # kokoro and piper want their weights
    for clip in demo.plan():
        if clip.voice.engine in ("flite", "espeak-ng"):
            engines.setdefault(clip.voice.engine, clip)
    assert set(engines) == {"flite", "espeak-ng"}
    demo.make(list(engines.values()), tmp_path)
    for clip in engines.values():
        committed, again = (
            read_clip(CORPUS / clip.path),
            read_clip(tmp_path / clip.path),
        )
        # To the sample on one machine; another CPU's rounding may move what Opus keeps.
        assert len(committed) == len(again), clip.id
        assert np.corrcoef(committed, again)[0, 1] > 0.999, clip.id
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.opus")}
    demo.make(list(engines.values()), tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.opus")}
