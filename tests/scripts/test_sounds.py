"""Sounds and what is put behind a voice: the same every time, as loud as asked; labels in the tree.

.venv/bin/python -m pytest tests/scripts/test_sounds.py
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from fetch_voices import CACHE
from libri_tree import Clip, hear, write_audio, write_tables
from neural import parts
from sounds import APPLAUSE, MAKERS, PHONE, Sound, alone, behind, make
from synthesis import PEAK, RATE, Voice

from extract.corpora.librispeech import librispeech_manifest
from omni.errors import OmniError

MADE = (
    "hiss",
    "hum",
    "telephone",
    "applause",
    "silence",
)  # without the packages of fetch_voices.py
needs_voices = pytest.mark.skipif(not CACHE.is_dir(), reason="scripts/fetch_voices.py was not run")


@pytest.mark.parametrize("kind", MADE)
def test_a_sound_is_a_function_of_its_seed(kind: str) -> None:
    one, again, other = (make(Sound(kind, seed), 2 * RATE) for seed in (1, 1, 2))
    assert one.shape == (2 * RATE,)
    assert np.isfinite(one).all()
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert np.sqrt(np.mean(one**2)) == pytest.approx(1, abs=1e-3)


def test_sounds_of_two_kinds_differ_in_their_spectrum() -> None:
    def share_below(kind: str, hertz: float) -> float:
        power = np.abs(np.fft.rfft(make(Sound(kind, 3), 2 * RATE))) ** 2
        return float(power[: int(hertz * 2)].sum() / power.sum())

    assert share_below("hum", 800) > 0.95
    assert share_below("hiss", 800) < 0.4
    assert share_below("telephone", 800) < 0.1


@pytest.mark.parametrize("snr", [0.0, 6.0, 20.0])
def test_what_is_behind_is_as_far_below_as_asked(snr: float) -> None:
    voice = (0.3 * np.sin(np.arange(RATE) * 0.1)).astype(np.float32)
    both = behind(voice, Sound("hiss", 5), snr)
    assert np.abs(both).max() == pytest.approx(PEAK, rel=1e-5)
    # What of the mixture is the voice, is found by projection: a hiss is like no voice.
    scale = float(both @ voice / (voice @ voice))
    rest = both - scale * voice
    found = 10 * np.log10(np.mean((scale * voice) ** 2) / np.mean(rest**2))
    assert found == pytest.approx(snr, abs=0.5)
    assert np.array_equal(behind(voice, Sound("silence", 1), snr), voice)


def test_silence_alone_is_silent_and_other_sounds_are_as_loud_as_a_clip() -> None:
    assert np.abs(alone(Sound("silence", 1), 1.0)).max() < 0.01
    assert np.abs(alone(Sound("hum", 1), 1.0)).max() == pytest.approx(PEAK, rel=1e-5)


def test_an_unknown_sound_and_an_instrument_without_a_number_are_told() -> None:
    with pytest.raises(OmniError, match="no sound 'rain'"):
        make(Sound("rain", 1), RATE)
    with pytest.raises(OmniError, match="an instrument without a number"):
        make(Sound("instrument", 1), RATE)


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("af_nova", {"af_nova": 1}),
        ("a:3+b:1", {"a": 0.75, "b": 0.25}),
        ("a+b", {"a": 0.5, "b": 0.5}),
    ],
)
def test_a_blend_s_shares_add_up(name: str, shares: dict[str, float]) -> None:
    assert parts(name) == shares


@pytest.mark.parametrize("name", ["a:x", "a:0", "a:-1+b", "a:nan"])
def test_a_share_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(OmniError, match="a share of"):
        parts(name)


def test_a_tree_with_labels_is_read_with_them(tmp_path: Path) -> None:
    nobody = Clip("test-sounds", 7001, 70010, 0, None, "", "", sound=Sound("hum", 1), seconds=1.0)
    write_audio(nobody, tmp_path)
    write_tables([nobody], tmp_path)
    (found,) = librispeech_manifest(tmp_path, "test-sounds").utterances
    assert (found.sound, found.sex, found.text) == ("hum", "", "")
    assert found.seconds == pytest.approx(1.0)
    with pytest.raises(AssertionError, match="neither a voice nor a sound"):
        hear(Clip("test-sounds", 7001, 70010, 1, None, "", ""))


@needs_voices
@pytest.mark.slow
def test_neural_voices_and_instruments_say_the_same_every_time() -> None:
    voice = Voice("kokoro", "af_nova+af_river", "F", accent="GB")
    for sound in (
        Sound("instrument", 1, 40),
        Sound("telephone", 1, PHONE),
        Sound("applause", 1, APPLAUSE),
    ):
        clip = Clip("test", 1, 10, 0, voice, "good morning", "good morning", sound=sound, snr=5)
        assert np.array_equal(hear(clip), hear(clip))
    assert set(MAKERS) >= {"instrument", "babble"}
