"""Blocks of any rate and number of channels to one wave, as if it had been done at once.

.venv/bin/python -m pytest tests/omni/audio/test_mono.py
"""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from audio_kit import hiss
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.audio import load_audio, to_mono_16k
from omni.audio import mono as mono_module
from omni.audio.mono import Block, mono_16k
from omni.errors import OmniError


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("n", [1, 5_001, 3_300_007])
def test_resampled_in_blocks_equals_torchaudio_at_once(rate: int, n: int) -> None:
    wave = (np.random.default_rng(rate).standard_normal(n) * 0.1).astype(np.float32)
    at_once = torchaudio.functional.resample(torch.from_numpy(wave), rate, 16_000).numpy()
    blocks = [Block(part[:, None], rate) for part in np.array_split(wave, 1 + n // 200_000)]
    np.testing.assert_array_equal(mono_16k(lambda: blocks, ""), at_once)


@settings(max_examples=30, deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]),
    sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=12),
)
def test_where_the_blocks_are_cut_does_not_matter(rate: int, sizes: list[int]) -> None:
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(mono_module, "_RESAMPLED_AT_ONCE", 700)  # many seams in little sound
        wave = hiss(sum(sizes) + 20)
        ends = np.cumsum([*sizes, 20])
        blocks = [
            Block(wave[end - size : end, None], rate)
            for end, size in zip(ends, [*sizes, 20], strict=True)
        ]
        ours = mono_16k(lambda: blocks, "")
    at_once = torchaudio.functional.resample(torch.from_numpy(wave), rate, 16_000).numpy()
    assert ours.shape == at_once.shape
    np.testing.assert_allclose(ours, at_once, rtol=0, atol=2e-7)


def test_memory_is_that_of_the_wave(tmp_path: Path) -> None:
    seconds, rate, channels = 120, 48_000, 2
    with soundfile.SoundFile(tmp_path / "a.wav", "w", rate, channels, "PCM_16") as file:
        for i in range(seconds):
            file.write(np.random.default_rng(i).standard_normal((rate, channels)) * 0.05)
    load_audio(tmp_path / "a.wav")  # what is imported on the way is not the wave's
    tracemalloc.start()
    wave = load_audio(tmp_path / "a.wav")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # numpy's alone. At once it took 6 waves for the samples and 3 for their mean.
    assert peak < 3 * wave.nbytes + (24 << 20)


def speech_like(seed: int, n: int = 48_000) -> np.ndarray:
    """Bursts of coloured noise, as syllables: float32 (n,)."""
    time = np.arange(n) / 16_000
    return (hiss(n, seed) * np.maximum(np.sin(2 * np.pi * (3 + seed % 2) * time), 0)).astype("f4")


def level(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(wave.astype(np.float64) ** 2)))


def tone(n: int = 48_000, shift: int = 0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 500 * (np.arange(n) + shift) / 16_000)).astype("f4")


@pytest.mark.parametrize(
    "channels",
    [
        [speech_like(1), -speech_like(1)],
        [speech_like(1), -0.8 * speech_like(1)],
        [-0.7 * speech_like(1), speech_like(1)],
        [tone(), tone(shift=16)],  # half a period of 500 Hz
        # A middle and a side signal of a voice on the right.
        [0.5 * speech_like(2), -0.5 * speech_like(2)],
        [speech_like(1), -speech_like(1), speech_like(2), -speech_like(2)],
        [speech_like(1) + np.float32(0.1), -speech_like(1) + np.float32(0.1)],
    ],
    ids=["inverted", "quieter", "louder", "delayed", "mid-side", "four", "constant"],
)
def test_channels_that_cancel_are_heard(channels: list[np.ndarray]) -> None:
    wave = to_mono_16k(np.stack(channels, axis=1).astype(np.float32), 16_000)
    assert level(wave - wave.mean()) > 0.8 * max(level(c - c.mean()) for c in channels)


def test_two_voices_of_a_middle_and_a_side_signal_are_both_heard() -> None:
    left, right = speech_like(1), speech_like(2)
    left[24_000:] = 0  # one speaks, then the other
    right[:24_000] = 0
    stereo = np.stack([(left + right) / 2, (left - right) / 2], axis=1)
    wave = to_mono_16k(stereo, 16_000)
    assert level(wave[:24_000]) > 0.45 * level(left[:24_000])
    assert level(wave[24_000:]) > 0.45 * level(right[24_000:])


@pytest.mark.parametrize(
    "channels",
    [
        [speech_like(1), speech_like(1)],
        [speech_like(1), speech_like(2)],
        [speech_like(1), np.zeros(48_000, "f4")],
        [speech_like(1), np.roll(speech_like(1), 9)],
        [speech_like(1), 0.5 * np.roll(speech_like(1), 160) + 0.1 * speech_like(2)],
        [np.full(48_000, 0.1, "f4"), np.full(48_000, -0.1, "f4") + 1e-3 * speech_like(1)],
        [speech_like(i) for i in range(6)],
    ],
    ids=["equal", "apart", "dead", "delayed", "room", "constant", "six"],
)
def test_other_channels_become_their_mean(channels: list[np.ndarray]) -> None:
    stereo = np.stack(channels, axis=1).astype(np.float32)
    np.testing.assert_array_equal(to_mono_16k(stereo, 16_000), stereo.mean(axis=1))


@pytest.mark.parametrize("value", [1e29, -1e17, 1e4, -32_768.0, 3e38])
def test_absurd_samples_are_refused_by_their_value(value: float, tmp_path: Path) -> None:
    wave = hiss(4_800)
    wave[77] = value
    soundfile.write(tmp_path / "bad.wav", wave, 16_000, subtype="FLOAT")
    with pytest.raises(OmniError, match="times as large as full scale") as caught:
        load_audio(tmp_path / "bad.wav")
    assert f"{abs(value):.3g}" in caught.value.what
    with pytest.raises(OmniError):  # nor where another channel hides it
        to_mono_16k(np.stack([wave, -wave], axis=1), 48_000)


def test_samples_over_full_scale_are_a_hot_mix() -> None:
    wave = hiss() * np.float32(8.0)
    np.testing.assert_array_equal(to_mono_16k(wave, 16_000), wave)


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1, 44_101])
def test_absurd_rates_are_refused(rate: int) -> None:
    with pytest.raises(OmniError, match=f"{rate} Hz can't be resampled"):
        to_mono_16k(hiss(100), rate)


def test_absurd_channels_and_lengths_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OmniError, match="65 channels"):
        to_mono_16k(np.zeros((10, 65), np.float32), 16_000)

    def endless() -> Iterator[Block]:
        while True:
            yield Block(np.zeros((2_000 * 3_600, 1), np.float32), 2_000)

    monkeypatch.setattr("omni.audio.mono._LONGEST_SECONDS", 2 * 3600)  # no need to wait for twelve
    with pytest.raises(OmniError, match="longer than 2 hours"):
        mono_16k(endless, "bomb")
