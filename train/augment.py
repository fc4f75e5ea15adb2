"""Changes to Whisper frames in training that help with a voice never heard. Pure numpy.

Called, an `Augmentation` changes frames on the host. `draw` decides no more than what chance decides
and leaves the frames to `draws.py`, which changes a batch of them on a device.

Must not know the stream or the model: a function of frames and a generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from omni.errors import OmniError


class Drawn(NamedTuple):
    """What chance decides for one utterance.

    n_in, n_out: frames before and after stretching. gains: factor less one and offset of each
    channel, (2, 1, d) or (2, L, 1, d) float32, or None. spans: (begin, end) of frames set to zero.
    noise: its standard deviation, in shares of each channel's own; seed: of its generator, 0 to
    2**63 - 1.
    """

    n_in: int
    n_out: int
    gains: np.ndarray | None
    spans: tuple[tuple[int, int], ...]
    noise: float
    seed: int


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
            for begin, end in _spans(x.shape[-2], self.mask, rng):
                x[..., begin:end, :] = 0
        return x.astype(frames.dtype)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Drawn:
        """What chance decides for frames of this shape; the noise itself is not drawn: it is as
        large as the frames, and 99 % of the time that a call takes."""
        n_in = n_out = shape[-2]
        if self.stretch:
            n_out = _stretched(n_in, 1 + rng.uniform(-self.stretch, self.stretch))
        gains = None
        if self.gain:
            each = (2, *shape[:-2], 1, shape[-1])
            gains = rng.normal(0, self.gain, each).astype(np.float32)
        seed = int(rng.integers(2**63)) if self.noise else 0
        spans = tuple(_spans(n_out, self.mask, rng)) if self.mask else ()
        return Drawn(n_in, n_out, gains, spans, self.noise, seed)


def _stretched(frames: int, rate: float) -> int:
    """Frames after stretching, at least one."""
    return max(round(frames * rate), 1)


def _stretch(x: np.ndarray, rate: float) -> np.ndarray:
    """(..., T, d) to (..., round(T * rate), d), at least one frame."""
    T = x.shape[-2]
    at = np.linspace(0, T - 1, _stretched(T, rate), dtype=np.float32)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, T - 1)
    share = (at - low)[:, None]
    return x[..., low, :] * (1 - share) + x[..., high, :] * share


def _spans(
    T: int, share: float, rng: np.random.Generator, longest: int = 8
) -> Iterator[tuple[int, int]]:
    """(begin, end) of spans, until about `share` of the frames are hit."""
    for _ in range(round(T * share / (longest / 2))):
        width = int(rng.integers(1, longest))
        begin = int(rng.integers(0, max(T - width, 1)))
        yield begin, min(begin + width, T)
