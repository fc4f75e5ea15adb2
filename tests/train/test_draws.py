"""Augmentation on the device: what the host's does, whatever the batch is cut into."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from step_kit import gradients, make_trainee
from training_kit import speech, write_split

import train.draws
from omni.bridge.frames import pad_features
from train.augment import Augmentation, Drawn
from train.data import gather
from train.draws import Draws, augmented, collect
from train.passes import BatchRule, Shard
from train.step import backward
from train.stream import START, Packed, Position, StreamSpec, batches

RECIPE = Augmentation(noise=0.3, gain=0.2, stretch=0.15)
ALL = replace(RECIPE, mask=0.3)
CHANGES = [
    *(replace(Augmentation(), **{name: getattr(ALL, name)}) for name in ("noise", "gain", "mask", "stretch")),
    RECIPE, ALL,
]  # fmt: skip


def frames(lengths: Sequence[int], layers: int = 0, dtype: type = np.float32) -> list[np.ndarray]:
    """(T, 6) or (layers, T, 6), each channel of its own mean and spread."""
    rng = np.random.default_rng(len(lengths))
    spread = rng.uniform(0.5, 2, 6)
    shapes = [(*([layers] if layers else []), n, 6) for n in lengths]
    return [(rng.standard_normal(s) * spread + 3 * spread).astype(dtype) for s in shapes]


def drawn_as_on_the_host(
    change: Augmentation, x: np.ndarray, rng: np.random.Generator
) -> tuple[Drawn, np.ndarray]:
    """What chance decides where the noise itself is drawn too, in the order of a call."""
    drawn = replace(change, noise=0, mask=0).draw(x.shape, rng)
    shape = (*x.shape[:-2], drawn.n_out, x.shape[-1])
    noise = rng.standard_normal(shape, np.float32) if change.noise else np.zeros(shape, np.float32)
    spans = Augmentation(mask=change.mask).draw(shape, rng).spans
    return drawn._replace(noise=change.noise, spans=spans), noise


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_with_the_host_s_noise_it_is_the_host_s(
    change: Augmentation, layers: int, dtype: type, lengths: list[int], seed: int
) -> None:
    given = frames(lengths, layers, dtype)
    want = [change(x, np.random.default_rng([seed, i])) for i, x in enumerate(given)]
    drawn, noise = zip(
        *(
            drawn_as_on_the_host(change, x, np.random.default_rng([seed, i]))
            for i, x in enumerate(given)
        ),
        strict=True,
    )
    padded, _ = pad_features(noise)
    with mock.patch.object(train.draws, "_noise", return_value=padded):
        got = augmented(pad_features(given)[0], collect(drawn))
    assert got.dtype == torch.from_numpy(given[0]).dtype
    assert got.shape[-2] == max(x.shape[-2] for x in want)
    tolerance = 2e-5 if dtype is np.float32 else 2e-2  # of values up to 20: one bit of fp16
    for row, x in zip(got.numpy(), want, strict=True):
        n = x.shape[-2]
        np.testing.assert_allclose(row[..., :n, :], x, rtol=tolerance / 10, atol=tolerance)
        assert not row[..., n:, :].any()


def draw(change: Augmentation, given: Sequence[np.ndarray], seed: int = 0) -> Draws:
    return collect(
        [change.draw(x.shape, np.random.default_rng([seed, i])) for i, x in enumerate(given)]
    )


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layers", [0, 2])
@settings(deadline=None, max_examples=10)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    micro=st.integers(1, 6),
    more=st.integers(0, 9),
)
def test_cuts_and_padding_change_nothing(
    change: Augmentation, layers: int, lengths: list[int], micro: int, more: int
) -> None:
    """To the bit: a row alone, in a micro-batch, or padded further than need be."""
    given = frames(lengths, layers, np.float16)
    draws = draw(change, given)
    features, _ = pad_features(given)
    whole = augmented(torch.nn.functional.pad(features, (0, 0, 0, more)), draws)
    for begin in range(0, len(given), micro):
        at = slice(begin, begin + micro)
        part = augmented(features[at], draws.of(at))
        assert part.equal(whole[at][..., : part.shape[-2], :])
        assert not whole[at][..., part.shape[-2] :, :].any()


def test_the_noise_has_the_spread_that_was_asked_and_is_its_own_in_each_row() -> None:
    """Drawn by the device's generator: of mean 0 and the asked share of each channel's spread."""
    given = frames([4000, 4000])
    draws = draw(Augmentation(noise=0.5), given)
    features, _ = pad_features(given)
    noise = augmented(features, draws) - features
    share = noise.std(1) / features.std(1)
    assert torch.allclose(share, torch.full_like(share, 0.5), rtol=0.1)
    assert noise.mean(1).abs().max() < 0.1
    both = torch.corrcoef(noise[:, :, 0])
    assert both[0, 1].abs() < 0.1


def shards_of(folder: Path) -> list[Shard]:
    write_split(folder, "train-x", speech(24))
    write_split(folder, "dev-x", speech(4, 3, 900, "bob"), role="eval")
    return gather([str(folder)]).shards


Heard = dict[tuple[Position, str], torch.Tensor]


def heard(
    shards: list[Shard], rank: int, world: int, workers: int = 0, start: Position = START
) -> Heard:
    """What the projector gets of each utterance, to the end of the second pass."""
    spec = StreamSpec(shards, 4, BatchRule(8), rank, world, draw=ALL.draw)
    found: Heard = {}
    stream = batches(spec, start, workers)
    for item in itertools.takewhile(lambda item: item.at.number < 2, stream):
        assert item.draws is not None
        x = augmented(item.features, item.draws)
        assert x.shape[1] == int(item.lengths.max())
        for row, (key, n) in enumerate(zip(item.keys, item.lengths.tolist(), strict=True)):
            assert not x[row, n:].any()
            found[item.at, key] = x[row, :n]
    stream.close()
    return found


def same(a: Heard, b: Heard) -> bool:
    return a.keys() <= b.keys() and all(x.equal(b[k]) for k, x in a.items())


def test_ranks_workers_and_resume_hear_the_same(tmp_path: Path) -> None:
    shards = shards_of(tmp_path)
    whole = heard(shards, 0, 1)
    assert len(whole) == 48
    halves = [heard(shards, rank, 2) for rank in range(2)]
    assert all(same(half, whole) for half in halves)
    assert len(halves[0] | halves[1]) == 48
    assert same(whole, heard(shards, 0, 1, workers=2))
    later = heard(shards, 0, 1, start=Position(0, 2))
    assert len(later) == 32
    assert same(later, whole)
    first, second = ({k: x for (at, k), x in whole.items() if at.number == n} for n in (0, 1))
    assert not any(x.shape == second[k].shape and x.equal(second[k]) for k, x in first.items())


def late(n: int = 7) -> Packed:
    """A batch whose augmentation is left to the step."""
    samples = speech(n)
    given = [s.features for s in samples]
    draws = draw(ALL, given)
    lengths = torch.tensor([one.n_out for one in draws.each])
    texts = [s.meta["text_norm"] for s in samples]
    keys = [s.key for s in samples]
    return Packed(pad_features(given)[0], lengths, texts, keys, START, START, n, draws)


def test_a_step_counts_and_learns_from_what_it_made() -> None:
    """Frames and soft tokens are those after stretching; the gradient is that of the same frames
    augmented before, whatever the micro-batch."""
    packed = late()
    done = packed._replace(features=augmented(packed.features, packed.draws), draws=None)
    results = []
    for batch, micro in ((done, 8), (packed, 8), (packed, 3), (packed, 1)):
        trainee = make_trainee(micro)
        sums = backward(trainee, batch)
        results.append((sums, gradients(trainee)))
        assert int(sums[4]) == sum(one.n_out for one in packed.draws.each)
    assert int(results[1][0][5]) == max(packed.lengths) * 7
    for sums, gradient in results[1:]:
        torch.testing.assert_close(sums[:5], results[0][0][:5], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", [0, 2])
def test_on_a_card_it_is_computed_in_fp32_and_asks_for_nothing(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake card fails where a value is asked for. Halves come in and go out."""
    given = frames([40, 50, 30], layers, np.float16)
    draws = draw(ALL, given)
    features = pad_features(given)[0]
    longest = max(one.n_out for one in draws.each)
    devices = []

    class Normal:  # CUDA's generator needs a driver
        def __init__(self, device: torch.device) -> None:
            devices.append(device.type)

        def __call__(self, shape: tuple[int, ...], seed: int) -> torch.Tensor:
            return torch.zeros(shape, device="cuda")

    monkeypatch.setattr(train.draws, "_Normal", Normal)
    with fake_cuda() as operations:
        there = augmented(features.to("cuda"), draws)
    assert there.device.type == "cuda"
    assert (there.dtype, there.shape[-2:]) == (torch.float16, (longest, 6))
    assert devices == ["cuda"]
    whole = tuple(there.shape)
    arithmetic = ("mul", "add", "sub")
    sized = [op for op in operations.seen if op.shape == whole and op.name in arithmetic]
    assert len(sized) >= 8
    assert {op.dtype for op in sized} == {torch.float32}
    assert {op.dtype for op in operations.seen if op.name == "sum"} == {torch.float64}
    assert len(operations.seen) < 70 + 5 * len(given)  # views among them: no loop over frames


def test_empty_shares_have_no_draws(tmp_path: Path) -> None:
    shards = shards_of(tmp_path)
    spec = StreamSpec(shards, 0, BatchRule(1), rank=1, world=2, draw=ALL.draw)
    stream = batches(spec)
    item = next(stream)
    stream.close()
    assert item.draws is None
    assert item.features.shape[0] == item.lengths.numel() == 0


def test_draws_are_small() -> None:
    """A few numbers a channel, whatever the length: what worker processes hand over."""
    short, long = (draw(RECIPE, frames([n])) for n in (10, 1000))
    assert short.gains is not None
    assert long.gains is not None
    assert short.gains.shape == long.gains.shape == (1, 2, 1, 6)
