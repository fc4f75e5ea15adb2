"""Silence is not decoded, quiet speech is.

.venv/bin/python -m pytest tests/omni/test_silence.py
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from audio_kit import hiss

from omni.transcriber import Sampling, Transcriber, is_silent


def dither(n: int) -> np.ndarray:
    """What a 16-bit converter without a signal gives: steps of -1, 0 and 1."""
    rng = np.random.default_rng(0)
    return (np.rint(rng.triangular(-1, 0, 1, n)) / 32_768).astype(np.float32)


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(16_000, np.float32),
        np.full(16_000, 0.02, np.float32),
        dither(16_000),
        hiss(16_000) * np.float32(3e-4),
        np.zeros(1, np.float32),
    ],
    ids=["zeros", "constant", "dither", "hiss", "a sample"],
)
def test_what_no_ear_hears_is_silence(wave: np.ndarray) -> None:
    assert is_silent(wave)


@pytest.mark.parametrize("decibels", [0, 20, 40, 55])
def test_quiet_speech_is_not(decibels: int) -> None:
    time = np.arange(32_000) / 16_000
    syllables = hiss(32_000) * np.maximum(np.sin(2 * np.pi * 3 * time), 0)
    assert not is_silent((syllables * 10 ** (-decibels / 20)).astype(np.float32))


def test_one_word_in_a_long_silence_is_heard() -> None:
    wave = np.zeros(30 * 16_000, np.float32)
    wave[200_000:203_000] = hiss(3_000) * np.float32(0.01)
    assert not is_silent(wave)


class Deaf(Transcriber):
    """A transcriber without models that notes which pieces it is given."""

    def __init__(self) -> None:
        self.chunk_seconds = 30.0
        self.lm = self.template = SimpleNamespace()  # type: ignore[assignment]
        self.encoder = SimpleNamespace(frames_per_second=50)  # type: ignore[assignment]
        self.tok = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))  # type: ignore[assignment]
        self.projector = SimpleNamespace(output_length=lambda n: n // 4)  # type: ignore[assignment]
        self.given: list[int] = []

    def features(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The waves themselves: nobody computes anything of them."""
        return list(waves)

    def decode(self, *args: Any) -> list[list[int]]:
        """In the place of `omni.evaluation.decode.decode`: the number of the piece."""
        self.given += [len(wave) for wave in args[3]]
        return [[len(self.given)] for _ in args[3]]


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Deaf:
    listener = Deaf()
    monkeypatch.setattr("omni.transcriber.decode", listener.decode)
    return listener


def test_two_hours_of_silence_are_no_work_and_no_text(deaf: Deaf) -> None:
    (heard,) = deaf([np.zeros(2 * 3600 * 16_000, np.float32)])
    assert deaf.given == []
    assert (heard.text, heard.ids, heard.n_soft, heard.seconds) == ("", [], 0, 7200.0)
    assert heard.chunks >= 240


def test_texts_stay_with_their_recordings(deaf: Deaf) -> None:
    quiet, loud = np.zeros(16_000, np.float32), hiss(16_000)
    mixed = np.concatenate([np.zeros(40 * 16_000, np.float32), hiss(50 * 16_000)])
    heard = deaf([quiet, loud, mixed, quiet, loud], sampling=Sampling(), batch_size=1)
    assert [bool(h.text) for h in heard] == [False, True, True, False, True]
    assert heard[1].text == "1"
    assert heard[4].text == str(len(deaf.given))
    assert heard[0].n_soft == 0
    assert heard[1].n_soft > 0
