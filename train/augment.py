"""Changes to Whisper frames in training that help with a voice never heard. Pure numpy.

Must not know the stream or the model: a function of frames and a generator.
"""

from dataclasses import dataclass

import numpy as np

from omni.errors import OmniError


@dataclass(frozen=True)
class Augmentation:
    """Callable on frames (T, d) or (L, T, d), fp16 or fp32; returns the same kind of array.

    noise: standard deviation of added noise, as a share of each channel's own over the utterance.
    gain: spread of a random factor and of a random offset on each channel, in shares of its
        standard deviation: another voice shifts and scales channels, and this imitates that.
    mask: share of the frames set to zero, in spans of up to 8 frames (0.16 s).
    stretch: speaking rate changes by up to this share, by linear interpolation between frames.
    """

    noise: float = 0.0
    gain: float = 0.0
    mask: float = 0.0
    stretch: float = 0.0

    def __post_init__(self) -> None:
        if min(self.noise, self.gain) < 0 or not (0 <= self.mask < 1 and 0 <= self.stretch < 1):
            raise OmniError("augmentation shares must be 0 or above, mask and stretch below 1")

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return any((self.noise, self.gain, self.mask, self.stretch))

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The changed frames, as a new array."""
        x = frames.astype(np.float32)
        if self.stretch:
            x = _stretch(x, 1 + rng.uniform(-self.stretch, self.stretch))
        spread = x.std(-2, keepdims=True)  # (1, d) or (L, 1, d)
        if self.gain:
            scale, shift = rng.normal(0, self.gain, (2, *spread.shape)).astype(np.float32)
            mean = x.mean(-2, keepdims=True)
            x = mean + (x - mean) * (1 + scale) + shift * spread
        if self.noise:
            x += rng.standard_normal(x.shape, dtype=np.float32) * (self.noise * spread)
        if self.mask:
            _mask(x, self.mask, rng)
        return x.astype(frames.dtype)


def _stretch(x: np.ndarray, rate: float) -> np.ndarray:
    """(..., T, d) to (..., round(T * rate), d), at least one frame."""
    T = x.shape[-2]
    at = np.linspace(0, T - 1, max(round(T * rate), 1), dtype=np.float32)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, T - 1)
    share = (at - low)[:, None]
    return x[..., low, :] * (1 - share) + x[..., high, :] * share


def _mask(x: np.ndarray, share: float, rng: np.random.Generator, span: int = 8) -> None:
    """Zero spans in place until about `share` of the frames are hit."""
    T = x.shape[-2]
    for _ in range(round(T * share / (span / 2))):
        width = int(rng.integers(1, span))
        begin = int(rng.integers(0, max(T - width, 1)))
        x[..., begin : begin + width, :] = 0
