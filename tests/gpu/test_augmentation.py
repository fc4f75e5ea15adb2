"""Augmentation on a card, beside the same on the CPU.

.venv/bin/python -m pytest -m gpu tests/gpu/test_augmentation.py
"""

import numpy as np
import pytest
import torch

import train.draws
from omni.bridge.frames import pad_features
from train.augment import Augmentation
from train.draws import augmented, collect

CARD = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")])  # fmt: skip
CHANGE = Augmentation(noise=0.3, gain=0.2, mask=0.1, stretch=0.15)

on_each_device = pytest.mark.parametrize("device", [CARD, "cpu"])
with_layers = pytest.mark.parametrize("layers", [0, 3])


def batch(layers: int) -> tuple[torch.Tensor, train.draws.Draws]:
    rng = np.random.default_rng(0)
    above = [layers] if layers else []
    given = [
        rng.standard_normal((*above, n, 64)).astype(np.float16) for n in (700, 512, 33, 1)
    ]  # fmt: skip
    drawn = [CHANGE.draw(x.shape, np.random.default_rng(i)) for i, x in enumerate(given)]
    return pad_features(given)[0], collect(drawn)


@on_each_device
@with_layers
def test_it_is_the_cpus_but_for_rounding(
    device: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one and the same noise."""
    features, draws = batch(layers)

    def noise(x: torch.Tensor, each: object) -> torch.Tensor:
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device)

    monkeypatch.setattr(train.draws, "_noise", noise)
    here, there = augmented(features, draws), augmented(features.to(device), draws).cpu()
    torch.testing.assert_close(there.float(), here.float(), rtol=2e-3, atol=2e-3)
    assert there.ne(here).float().mean() < 0.01  # a bit of fp16, now and then


@on_each_device
@with_layers
def test_cuts_change_nothing(device: str, layers: int) -> None:
    features, draws = batch(layers)
    there = features.to(device)
    whole = augmented(there, draws)
    assert whole.equal(augmented(there, draws))
    for i in range(len(there)):
        at = slice(i, i + 1)
        alone = augmented(there[at], draws.of(at))
        assert alone.equal(whole[at][..., : alone.shape[-2], :])
        assert not whole[at][..., alone.shape[-2] :, :].any()


@on_each_device
def test_the_noise_is_normal_and_each_utterance_s_own(device: str) -> None:
    x = torch.zeros(2, 4000, 64, device=device)
    _, draws = batch(0)
    each = [one._replace(n_out=4000) for one in draws.each[:2]]
    noise = train.draws._noise(x, each).cpu()
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert not noise[0].equal(noise[1])
