"""The augmentation of `augment.py` for a padded batch at once, on the device where the step runs.

A batch of 32 costs one thread ten times what a step costs a card, nearly all of it for drawing noise.
So the host draws what is small (`Augmentation.draw`: rates, gains, spans and a seed), and the device
draws the noise, each utterance's by a generator of its own: its values are the same on any rank, in
any micro-batch and after any resume. They are those of the kind of device, so a run that goes on
elsewhere hears other noise. Must not know files, the stream or the model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from train.augment import Drawn


class Draws(NamedTuple):
    """What chance decided for the utterances of a batch.

    each: what holds of one, its gains left out. gains: (B, 2, 1, d) or (B, 2, L, 1, d) float32, or
    None.
    """

    each: list[Drawn]
    gains: Tensor | None

    def of(self, at: slice) -> "Draws":
        """Those of a micro-batch."""
        return Draws(self.each[at], None if self.gains is None else self.gains[at])

    def pin_memory(self) -> "Draws":
        """The same in page-locked memory, where it is a tensor."""
        return Draws(self.each, None if self.gains is None else self.gains.pin_memory())


def collect(drawn: Sequence[Drawn]) -> Draws:
    """Of one batch."""
    gains = [torch.from_numpy(one.gains) for one in drawn if one.gains is not None]
    each = [one._replace(gains=None) for one in drawn]
    return Draws(each, torch.stack(gains) if gains else None)


@torch.no_grad()
def augmented(features: Tensor, draws: Draws) -> Tensor:
    """The frames as `Augmentation` changes them, but for rounding (fp32 here) and for whose noise.

    Nothing here waits for the device.

    Args:
        features: (B, T, d) or (B, L, T, d), zero-padded, on any device.

    Returns:
        (B, T', d) or (B, L, T', d) in the features' dtype, T' the most frames after stretching;
        padding is zero.
    """
    device, each = features.device, draws.each
    ones = [1] * (features.ndim - 2)  # of (B, 1, 1) or (B, 1, 1, 1), and of (1, T', 1) likewise
    frames = torch.tensor([[one.n_in, one.n_out] for one in each])
    n_in, n_out = frames.to(device, non_blocking=True).view(-1, 2, *ones, 1).unbind(1)
    at = torch.arange(max(one.n_out for one in each), device=device).view(*ones, -1, 1)
    there = at < n_out  # (B, [1,] T', 1)
    if any(one.n_in != one.n_out for one in each):
        x = _stretch(features, at, n_in, n_out)
    else:
        x = features[..., : at.numel(), :].float()
    x = x * there
    # Sums in fp64: the same to fp32, however far a micro-batch pads.
    mean = (x.sum(-2, keepdim=True, dtype=torch.float64) / n_out).float()
    deviation = (x - mean) * there
    squares = deviation.square().sum(-2, keepdim=True, dtype=torch.float64)
    spread = (squares / n_out).sqrt().float()
    if draws.gains is not None:
        scale, shift = draws.gains.to(device, non_blocking=True).unbind(1)
        x = mean + deviation * (1 + scale) + shift * spread
    share = max(one.noise for one in each)
    if share:
        x = x + _noise(x, each) * (share * spread)
    return (x * (there & _kept(each, at))).to(features.dtype)


def _stretch(features: Tensor, at: Tensor, n_in: Tensor, n_out: Tensor) -> Tensor:
    """fp32 (..., T', d): between the two frames nearest to each of n_out places in n_in."""
    step = (n_in - 1).double() / (n_out - 1).clamp(min=1)
    place = torch.minimum(at * step, (n_in - 1).double()).float()  # (B, [1,] T', 1)
    low = place.floor()
    high = torch.minimum(low + 1, n_in - 1)
    shape = (*features.shape[:-2], at.numel(), features.shape[-1])
    below, above = (features.gather(-2, x.long().expand(shape)).float() for x in (low, high))
    return below + (above - below) * (place - low)


def _noise(x: Tensor, each: Sequence[Drawn]) -> Tensor:
    """fp32 (..., T', d), normal. Each utterance's is drawn in its own shape and then padded, so that
    its neighbours' lengths don't count."""
    normal = _Normal(x.device)
    noise = torch.zeros_like(x)
    for row, one in zip(noise, each, strict=True):
        row[..., : one.n_out, :] = normal((*x.shape[1:-2], one.n_out, x.shape[-1]), one.seed)
    return noise


class _Normal:
    """fp32 numbers of mean 0 and spread 1 from a device's own generator, by seed."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._generator = device, torch.Generator(device)

    def __call__(self, shape: tuple[int, ...], seed: int) -> Tensor:
        self._generator.manual_seed(seed)
        return torch.randn(
            shape, generator=self._generator, device=self._device, dtype=torch.float32
        )


def _kept(each: Sequence[Drawn], at: Tensor) -> Tensor:
    """(B, [1,] T', 1): False where a frame is masked; (1, ...) where none is."""
    if not any(one.spans for one in each):
        return at >= 0
    kept = torch.ones(len(each), at.numel(), dtype=torch.bool)
    for row, one in zip(kept, each, strict=True):
        for begin, end in one.spans:
            row[begin:end] = False
    return kept.to(at.device, non_blocking=True).view(len(each), *at.shape[1:])
