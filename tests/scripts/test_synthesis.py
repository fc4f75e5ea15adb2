"""The engines that are programs: one sentence to one clip, the same samples each time.

.venv/bin/python -m pytest tests/scripts/test_synthesis.py
"""

import sys
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from synthesis import EDGE, PEAK, RATE, SILENCE, Voice, read_clip, speak, write_clip

VOICES = [Voice("flite", "slt", "F"), Voice("espeak-ng", "en-us+f3", "F", pitch=55)]
TEXT = "hold the orange candle near the meadow at twelve today"

installed = pytest.mark.skipif(
    which("flite") is None or which("espeak-ng") is None, reason="flite, espeak-ng not installed"
)


@installed
@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.engine)
def test_a_sentence_is_spoken_the_same_every_time_between_edges_of_silence(voice: Voice) -> None:
    wave, again = speak(voice, TEXT), speak(voice, TEXT)
    assert np.array_equal(wave, again)
    assert np.abs(wave).max() == pytest.approx(PEAK, abs=1e-4)
    edge = int(EDGE * RATE)
    assert np.abs(wave[:edge]).max() <= SILENCE * PEAK * 1.001
    assert np.abs(wave[-edge:]).max() <= SILENCE * PEAK * 1.001


@installed
@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.engine)
def test_tempo_and_warp_change_how_long_it_takes(voice: Voice) -> None:
    own, slower, warped = (
        len(speak(v, TEXT)) / RATE - 2 * EDGE
        for v in (voice, replace(voice, tempo=1.25), replace(voice, warp=1.05))
    )
    assert slower / own == pytest.approx(1.25, abs=0.06)
    assert warped / own == pytest.approx(1 / 1.05, abs=0.02)


def test_a_file_that_would_hold_the_same_samples_stays_as_it_is(tmp_path: Path) -> None:
    wave = np.sin(np.arange(RATE) / 20).astype(np.float32) * 0.5
    path = tmp_path / "a.opus"
    write_clip(path, wave)
    before = path.stat().st_mtime_ns, path.read_bytes()
    write_clip(path, wave)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    write_clip(path, wave[::-1].copy())
    assert path.read_bytes() != before[1]
    assert len(read_clip(path)) == RATE
    assert [p.name for p in tmp_path.iterdir()] == ["a.opus"]
