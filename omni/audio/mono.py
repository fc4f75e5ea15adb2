"""Decoded blocks of any rate and number of channels to one wave: mono, 16 kHz, float32.

Works through a recording block by block, so that its memory is that of the wave it returns. Must
not know about files or formats.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from omni.errors import OmniError

SAMPLE_RATE = 16_000
# Below the first no consonant is left, above the last no converter works: a broken header.
_LOWEST_RATE, _HIGHEST_RATE = 2_000, 768_000
_MOST_CHANNELS = 64  # an ambisonic recording of the seventh order
_LONGEST_SECONDS = 12 * 3600  # 2.8 GB of samples; what claims more is a broken or hostile file
# Float samples have no ceiling. A mix before its last fader runs over full scale by some tens of
# dB; 60 dB over it is a flipped bit or integers saved as floats, and no encoder has heard such.
_LOUDEST = 1000.0
# torchaudio's resampling kernel has (rate / g) x (16000 / g) taps times its width, g the common
# divisor. Past this many taps (200 MB of float32) a rate is a broken header, not a recording.
_MAX_KERNEL_TAPS = 50_000_000
# Blocks of this many samples are resampled at once. torch picks its convolution by size: from here
# on the blocks' samples are bit for bit those of the whole recording at once.
_RESAMPLED_AT_ONCE = 1 << 20
_STRETCH = 16384  # samples, a third of a second to a second, over which channels are compared
_LOST = 0.1  # a downmix with less than this share of the channels' power (-10 dB) has lost them
_TOLERATED = 0.1  # the share of a recording's energy that its mean may lose


class Block(NamedTuple):
    """Some consecutive samples of a recording: float32 (n, channels), at `rate` Hz."""

    samples: np.ndarray
    rate: int


def mono_16k(blocks: Callable[[], Iterable[Block]], where: str) -> np.ndarray:
    """Channels to their mean, any sample rate to 16 kHz.

    Where channels cancel in their mean (one is inverted or delayed against the other, or they
    are a mid and a side signal) the channel that loses least is taken instead. A mean that lost a
    tenth of the energy does so; microphones apart, independent voices and dead channels don't.

    Args:
        blocks: begins the recording anew at each call; one rate, one number of channels.
        where: what errors name.

    Returns:
        float32 (n,), contiguous; n may be 0.

    Raises:
        OmniError: samples that are not finite or absurdly large; a rate, a number of channels or
            a length that no recording has.
    """
    loudness = _Loudness()
    wave = _wave(blocks(), None, loudness, where)
    channel = loudness.better_channel()
    return wave if channel is None else _wave(blocks(), channel, _Loudness(), where)


def check_format(rate: int, channels: int, where: str) -> None:
    """Refuse what no converter makes.

    Raises:
        OmniError: a rate outside of 2 to 768 kHz or with no small ratio to 16 kHz, or no channel,
            or more than 64.
    """
    if not 1 <= channels <= _MOST_CHANNELS:
        raise OmniError(f"audio has {channels} channels, at most {_MOST_CHANNELS} are read", where)
    common = math.gcd(rate, SAMPLE_RATE)
    taps = (rate // common) * (SAMPLE_RATE // common)
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE or taps > _MAX_KERNEL_TAPS:
        raise OmniError(f"audio at {rate} Hz can't be resampled to {SAMPLE_RATE} Hz", where)


def check_length(seconds: float, where: str) -> None:
    """Refuse a recording longer than any.

    Raises:
        OmniError: more than 12 hours.
    """
    if seconds > _LONGEST_SECONDS:
        hours = _LONGEST_SECONDS // 3600
        raise OmniError(f"audio is longer than {hours} hours", where, "cut it into parts")


def import_torchaudio() -> None:
    """Fail early, in one line, where torch and torchaudio do not match.

    torchaudio's wheel does not declare which torch it was built for; beside another one its import
    fails, and the import of transformers with it.
    """
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        import torch

        raise OmniError(
            "torchaudio can't be loaded beside this torch",
            f"torch {torch.__version__}",
            f"install both in the versions of requirements.lock ({error})",
        ) from error


def _wave(
    blocks: Iterable[Block], channel: int | None, loudness: "_Loudness", where: str
) -> np.ndarray:
    """One pass: the mean of the channels, or one of them."""
    out: list[np.ndarray] = []
    resampler: _Resampler | None = None
    seconds = 0.0
    for samples, rate in blocks:
        if resampler is None:
            check_format(rate, samples.shape[1], where)
            resampler = _Resampler(rate)
        seconds += len(samples) / rate
        check_length(seconds, where)
        if not len(samples):
            continue
        _check_values(samples, where)
        mean = samples.mean(axis=1)
        if channel is None:
            loudness.add(samples, mean)
        out += resampler.push(mean if channel is None else samples[:, channel].copy())
    if resampler is not None:
        out += resampler.finish()
    return out[0] if len(out) == 1 else np.concatenate([np.empty(0, np.float32), *out])


def _check_values(samples: np.ndarray, where: str) -> None:
    low, high = float(samples.min()), float(samples.max())  # nan if any sample is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise OmniError("audio holds samples that are not finite", where)
    peak = max(-low, high)
    if peak > _LOUDEST:
        raise OmniError(
            f"audio holds samples {peak:.3g} times as large as full scale",
            where,
            "float samples lie in about [-1, 1]: the file is damaged, or must be scaled",
        )


class _Loudness:
    """Which of the mean and the channels keeps what the channels hold."""

    def __init__(self) -> None:
        self._energy = 0.0
        self._lost = np.zeros(0)  # (1 + channels,): by the mean, by each channel
        self._power = np.zeros(0)

    def add(self, samples: np.ndarray, mean: np.ndarray) -> None:
        """Samples (n, channels) and their mean (n,)."""
        channels = samples.shape[1]
        if channels == 1:
            return
        begins = np.arange(0, len(samples), _STRETCH)
        each = _energy(samples, begins)  # (stretches, channels)
        # The sum of the channels, not their mean: unrelated channels keep their power in it.
        summed = _energy(mean[:, None], begins) * channels**2
        kept = np.concatenate([summed, each * channels], axis=1)
        whole = each.sum(axis=1, keepdims=True)
        if not len(self._lost):
            self._lost, self._power = np.zeros(channels + 1), np.zeros(channels + 1)
        self._energy += float(whole.sum())
        self._lost += np.where(kept < _LOST * whole, whole, 0.0).sum(axis=0)
        self._power += kept.sum(axis=0)

    def better_channel(self) -> int | None:
        """The channel to take where the mean won't do; the louder one of equals."""
        if not len(self._lost) or self._lost[0] <= _TOLERATED * self._energy:
            return None
        best = min(range(len(self._lost)), key=lambda i: (self._lost[i], -self._power[i]))
        return best - 1 if best else None


def _energy(samples: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Energy of each stretch without its constant part, which no one hears: (stretches, k)."""
    lengths = np.diff(begins, append=len(samples))[:, None]
    squares = np.add.reduceat(samples * samples, begins, axis=0, dtype=np.float64)
    sums = np.add.reduceat(samples, begins, axis=0, dtype=np.float64)
    return np.maximum(squares - sums * sums / lengths, 0.0)


class _Resampler:
    """torchaudio's resampling of a stream: a block at a time, with the neighbours it reaches into."""

    def __init__(self, rate: int) -> None:
        self._same = rate == SAMPLE_RATE
        if self._same:
            return
        import_torchaudio()
        import torch
        import torchaudio

        common = math.gcd(rate, SAMPLE_RATE)
        # A whole number of `_in` samples becomes as many times `_out`, in phase.
        self._in, self._out = rate // common, SAMPLE_RATE // common
        self._kernel = torchaudio.transforms.Resample(rate, SAMPLE_RATE, dtype=torch.float32)
        self._lead = -(-self._kernel.width // self._in) * self._in
        self._tail = self._kernel.width + self._in
        self._step = -(-_RESAMPLED_AT_ONCE // self._in) * self._in
        self._held: list[np.ndarray] = []
        self._length, self._context = 0, 0  # held samples; those of them that are done already

    def push(self, wave: np.ndarray) -> list[np.ndarray]:
        """Take samples (n,); what is ready comes back."""
        if self._same:
            return [wave]
        self._held.append(wave)
        self._length += len(wave)
        out = []
        # The last block is the rest and at least one step: never so short that torch changes over.
        while self._length >= self._context + 2 * self._step + self._tail:
            out.append(self._resample(self._step))
        return out

    def finish(self) -> list[np.ndarray]:
        """What is left."""
        if self._same or self._length == self._context:
            return []
        return [self._resample(self._length - self._context)]

    def _resample(self, count: int) -> np.ndarray:
        import torch

        held = np.concatenate(self._held) if len(self._held) > 1 else self._held[0]
        reach = held[: self._context + count + self._tail]
        begin = self._context // self._in * self._out
        resampled = self._kernel(torch.from_numpy(reach)).numpy()
        keep = self._lead if count >= self._lead else 0
        rest = held[self._context + count - keep :]
        self._held, self._length, self._context = [rest.copy()], len(rest), keep
        # A copy, so that the context's samples are not kept alive.
        return resampled[begin : begin + -(-count * self._out // self._in)].copy()
