"""The naturally spoken corpus that is committed: what its script plans, and speech in every clip."""

import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import make_demo_corpus as demo
from libri_tree import Clip
from synthesis import RATE, read_clip

CORPUS = ROOT / "manifests" / "demo-natural" / "LibriSpeech"


def place(clip: Clip, ending: str) -> Path:
    return CORPUS / clip.split / str(clip.speaker) / str(clip.chapter) / f"{clip.id}.{ending}"


def test_it_holds_the_clips_that_are_planned_and_no_others() -> None:
    planned = demo.natural_plan()
    assert {path.stem for path in CORPUS.rglob("*.opus")} == {clip.id for clip in planned}
    texts = {}
    for table in CORPUS.rglob("*.trans.txt"):
        texts |= dict(line.split(" ", 1) for line in table.read_text().splitlines())
    assert texts == {clip.id: clip.text.upper() for clip in planned}
    assert sum(path.stat().st_size for path in CORPUS.rglob("*.*")) < 9_000_000


def test_its_labels_are_what_is_planned() -> None:
    lines = (CORPUS / "LABELS.TSV").read_text().splitlines()
    rows = {line.split("\t")[0]: tuple(line.split("\t")[1:5]) for line in lines[1:]}
    assert rows == {clip.id: clip.labels for clip in demo.natural_plan()}


@pytest.mark.parametrize("split", ["demo-train", "demo-heldout", "demo-heldout-voice"])
def test_every_tenth_clip_holds_speech(split: str) -> None:
    for clip in [clip for clip in demo.natural_plan() if clip.split == split][::10]:
        wave = read_clip(place(clip, "opus"))
        assert 1.7 < len(wave) / RATE < 6
        assert 0.45 < np.abs(wave).max() < 0.85
        assert np.sqrt(np.mean(wave**2)) > 0.03
