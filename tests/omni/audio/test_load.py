"""Any recording becomes mono, 16 kHz, float32, or is refused in words.

.venv/bin/python -m pytest tests/omni/audio/test_load.py
"""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_kit import encode, hiss, put
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.audio import audio_info, load_audio
from omni.errors import OmniError

_SHORT = hiss(3_000)
_WHOLE = [
    encode(format, subtype, _SHORT)
    for format, subtype in [
        *(("WAV", "PCM_16"), ("WAV", "IMA_ADPCM"), ("AIFF", "PCM_16"), ("AU", "PCM_16")),
        *(("W64", "PCM_16"), ("CAF", "PCM_16"), ("RF64", "PCM_16"), ("NIST", "PCM_16")),
        *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)),
    ]
]


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


def test_a_name_that_is_no_utf8_is_read_and_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(encode("WAV", "PCM_16"))
    assert audio_info(path) == (40_000, 16_000)
    assert len(load_audio(path)) == 40_000
    folder = tmp_path / os.fsdecode(b"\xff folder")
    folder.mkdir()
    (folder / "a.mp3").write_bytes(encode("MP3"))
    assert len(load_audio(folder / "a.mp3")) == 40_000
    path.write_bytes(encode("WAV", "PCM_16")[:999])
    for read in (audio_info, load_audio):
        with pytest.raises(OmniError) as caught:
            read(path)
        assert r"caf\udce9.wav" in str(caught.value).encode("utf-8").decode("utf-8")


def test_an_absurd_header_is_refused_before_it_reaches_the_manifest(tmp_path: Path) -> None:
    blob = encode("WAV", "PCM_16")
    for rate in (1, 768_001, 2**31 - 1):
        (tmp_path / "a.wav").write_bytes(put(blob, 24, rate))
        for read in (audio_info, load_audio):
            with pytest.raises(OmniError, match="can't be resampled"):
                read(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "blob",
    [
        b"words",
        bytes(5_000),
        b"RIFF",
        b"fLaC",
        b"OggS",
        b"ID3",
        b"\xff\xfb\x90\x00" * 3,
        b"NIST_1A\n",
    ],
)
def test_what_is_no_sound_is_one_line(blob: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(blob)
    for read in (audio_info, load_audio):
        with pytest.raises(OmniError):
            read(tmp_path / "a.wav")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_sound_or_one_line(data: st.DataObject) -> None:
    blob = bytearray(data.draw(st.sampled_from(_WHOLE)))
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers more often than sound.
        at = data.draw(st.integers(0, min(len(blob), data.draw(st.sampled_from([80, 99_999]))) - 1))
        blob[at] = data.draw(st.integers(0, 255))
    try:
        wave = load_audio(bytes(blob[: data.draw(st.integers(1, len(blob)))]))
    except OmniError:
        return
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert len(wave) > 0
