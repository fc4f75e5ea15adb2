"""The demo corpus with natural voices, as it is planned: who, how, and what is held out.

.venv/bin/python -m pytest tests/scripts/test_demo_cast.py
"""

import sys
from collections import Counter
from functools import cache

from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import make_demo_corpus as demo
from demo_cast import INSTRUMENTS, KNOWN, PITCHES, SNR, UNHEARD, WITH_SOUND
from libri_tree import Clip
from make_audiobench_mini import INSTRUMENTS as OF_MINI
from neural import RESERVED, parts

SPLITS = {"demo-train": 400, "demo-heldout": 60, "demo-heldout-voice": 40}


@cache
def _plan() -> dict[str, list[Clip]]:
    clips = demo.plan()
    return {split: [clip for clip in clips if clip.split == split] for split in SPLITS}


def test_each_sentence_is_said_once_and_each_word_often_enough_to_be_learned() -> None:
    plan = _plan()
    assert {split: len(clips) for split, clips in plan.items()} == SPLITS
    every = [clip for clips in plan.values() for clip in clips]
    assert len({clip.text for clip in every}) == len({clip.id for clip in every}) == 500
    counts = Counter(word for clip in plan["demo-train"] for word in clip.text.split())
    assert len(counts) == 56
    assert min(counts.values()) >= 35
    assert [clip.id for clip in demo.plan()] == [clip.id for clip in every]


def test_unheard_voices_are_unheard_and_reserved_ones_nowhere() -> None:
    plan = _plan()
    speakers = {split: {clip.speaker for clip in clips} for split, clips in plan.items()}
    assert speakers["demo-train"] == set(KNOWN)
    assert speakers["demo-heldout"] <= set(KNOWN)
    assert speakers["demo-heldout-voice"] == set(UNHEARD)
    known = {part for voice, _ in KNOWN.values() for part in parts(voice.name)}
    unheard = {part for voice, _ in UNHEARD.values() for part in parts(voice.name)}
    assert len(KNOWN) >= 30
    assert not known & unheard
    assert not (known | unheard) & RESERVED
    natural = sum(n for voice, n in KNOWN.values() if voice.engine in ("kokoro", "piper"))
    robots = sum(n for voice, n in KNOWN.values() if voice.engine == "espeak-ng")
    assert natural > 0.6 * SPLITS["demo-train"]
    assert robots <= 10


def test_sexes_accents_paces_and_pitches_are_many_and_go_with_one_another_by_chance() -> None:
    train = _plan()["demo-train"]
    voices = [clip.voice for clip in train if clip.voice]
    assert len(voices) == len(train)
    sexes, accents = Counter(v.sex for v in voices), Counter(v.accent for v in voices)
    assert min(sexes.values()) >= 0.35 * len(train)
    assert set(accents) == {"US", "GB"}
    assert accents["GB"] >= 0.15 * len(train)
    assert {v.sex for v in voices if v.accent == "GB"} == {"M", "F"}
    grid = Counter((clip.pace, clip.pitch) for clip in train)
    assert len(grid) == 9
    assert min(grid.values()) >= len(train) / 9 * 0.6


def test_pitch_and_pace_are_what_their_labels_say() -> None:
    for clips in _plan().values():
        for clip in clips:
            assert clip.voice is not None
            low, high = PITCHES[clip.voice.sex][clip.pitch]
            assert low <= clip.voice.hertz <= high
    for sex in PITCHES.values():
        assert sex["low"][1] * 1.05 < sex["normal"][0] < sex["normal"][1] * 1.05 < sex["high"][0]


def test_a_quarter_has_a_sound_behind_that_audiobench_mini_has_not() -> None:
    clips = [clip for clips in _plan().values() for clip in clips]
    sounds = [(clip.sound, clip.snr) for clip in clips if clip.sound]
    assert abs(len(sounds) / len(clips) - 1 / WITH_SOUND) < 0.06
    assert {sound.kind for sound, _ in sounds} == {
        "hiss", "hum", "babble", "telephone", "applause", "instrument",
    }  # fmt: skip
    assert all(SNR[0] <= snr <= SNR[1] for _, snr in sounds)
    assert {s.preset for s, _ in sounds if s.kind == "instrument"} <= set(INSTRUMENTS)
    assert not set(INSTRUMENTS) & set(OF_MINI)
    assert all(s.preset < 0 for s, _ in sounds if s.kind != "instrument")
