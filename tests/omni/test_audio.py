"""Any recording becomes mono, 16 kHz, float32, or is refused in words.

.venv/bin/python -m pytest tests/omni/test_audio.py
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni.audio import load_audio
from omni.errors import OmniError


def test_any_rate_and_channels_become_mono_16k(tmp_path: Path) -> None:
    t = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0 * tone], axis=1), 44_100)
    wave = load_audio(tmp_path / "stereo.wav")
    assert wave.shape == (16_000,)
    assert wave.dtype == np.float32
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(wave - expected)[200:-200].max() < 2e-3
    assert (load_audio((tmp_path / "stereo.wav").read_bytes()) == wave).all()


def test_bad_audio_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="no such audio file"):
        load_audio(tmp_path / "none.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(OmniError, match="0 bytes"):
        load_audio(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(10, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(OmniError, match="not finite"):
        load_audio(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "odd.wav", np.zeros(10), 44_101)
    with pytest.raises(OmniError, match="44101 Hz can't be resampled"):
        load_audio(tmp_path / "odd.wav")
