"""The pass: every sample once, in one order, whatever reads it and wherever it starts."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import speech, write_split

from omni.errors import OmniError
from omni.formats.splits import SplitIndex
from train.ahead import ahead
from train.augment import Augmentation
from train.passes import BatchRule, Shard, plan_pass
from train.stream import START, Packed, Position, StreamSpec, _jobs, batches

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def make_shards(sizes: list[int], weight: float = 1.0) -> list[Shard]:
    rng = np.random.default_rng(0)
    return [
        Shard(f"s{i}", tuple(int(x) for x in rng.integers(5, 400, n)), tuple(range(n)), weight)
        for i, n in enumerate(sizes)
    ]


def of_split(split: SplitIndex) -> list[Shard]:
    return [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n))) for e in split.shards]


@given(SIZES, st.integers(0, 3), st.integers(0, 3), st.integers(1, 7), st.integers(1, 20))
def test_a_pass_holds_every_sample_once(
    sizes: list[int], seed: int, number: int, size: int, buffer: int
) -> None:
    rule = BatchRule(size, 0, buffer)
    windows = list(plan_pass(make_shards(sizes), seed, number, rule))
    seen = [i for w in windows for batch in w.batches for i in batch]
    assert sorted(seen) == [(s, p) for s, n in enumerate(sizes) for p in range(n)]
    full = [len(batch) for w in windows for batch in w.batches]
    assert sum(n < size for n in full) <= 1
    assert windows == list(plan_pass(make_shards(sizes), seed, number, rule))


@given(SIZES, st.integers(400, 2000))
def test_a_frame_budget_is_kept(sizes: list[int], frames: int) -> None:
    shards = make_shards(sizes)
    seen = []
    for window in plan_pass(shards, 0, 0, BatchRule(frames=frames, buffer=10)):
        for batch in window.batches:
            longest = max(shards[s].n_frames[p] for s, p in batch)
            assert longest * len(batch) <= frames
            seen += batch
    assert sorted(seen) == [(s, p) for s, n in enumerate(sizes) for p in range(n)]


def test_passes_and_seeds_differ_and_padding_is_small() -> None:
    shards = make_shards([256] * 8)

    def flat(seed: int, number: int) -> list[tuple[tuple[int, int], ...]]:
        windows = plan_pass(shards, seed, number, BatchRule(32))
        return [batch for w in windows for batch in w.batches]

    assert len({tuple(flat(s, n)) for s in (0, 1) for n in (0, 1)}) == 4
    lengths = [[shards[s].n_frames[p] for s, p in batch] for batch in flat(0, 0)]
    padded = sum(max(x) * len(x) for x in lengths)
    assert 1 - sum(map(sum, lengths)) / padded < 0.10
    # Neighbours must change from pass to pass, not only the order of fixed batches.
    together = [{frozenset(batch) for batch in flat(0, n)} for n in (0, 1)]
    assert not together[0] & together[1]


def test_weights_are_visits() -> None:
    shards = make_shards([4, 4], weight=2.0) + make_shards([4], weight=0.25)
    counts = np.zeros((40, 3))
    for number in range(40):
        for w in plan_pass(shards, 0, number, BatchRule(3)):
            for batch in w.batches:
                for s, _ in batch:
                    counts[number, s] += 1
    assert (counts[:, :2] == 8).all()
    assert set(counts[:, 2]) == {0, 4}
    assert 2 <= (counts[:, 2] == 4).sum() <= 20


def test_no_samples_is_an_error() -> None:
    with pytest.raises(OmniError, match="no training samples"):
        list(plan_pass([Shard("a", (5, 6), ())], 0, 0, BatchRule()))


@settings(deadline=None, max_examples=60)
@given(
    sizes=SIZES,
    workers=st.integers(1, 5),
    world=st.integers(1, 3),
    size=st.integers(1, 6),
    skip=st.integers(0, 12),
    weight=st.sampled_from([1.0, 2.0]),
)
def test_workers_and_ranks_share_the_same_batches(
    sizes: list[int], workers: int, world: int, size: int, skip: int, weight: float
) -> None:
    """Fewer shards than workers, empty shares, a start in mid-pass: all slices of one order."""
    shards, rule = make_shards(sizes, weight), BatchRule(size, 0, 8)
    passes = [
        [batch for w in plan_pass(shards, 7, number, rule) for batch in w.batches]
        for number in range(3)
    ]
    places = [(n, i) for n, one in enumerate(passes) for i in range(len(one))]
    skip %= len(places)
    start = Position(*places[skip])
    for rank in range(world):
        spec = StreamSpec(shards, 7, rule, rank, world)
        sources = [_shares(spec, start, worker, workers) for worker in range(workers)]
        merged = (next(sources[k % workers]) for k in itertools.count())
        for n, i in places[skip:]:
            share = next(merged)
            assert share.at == Position(n, i)
            assert share.ids == passes[n][i][rank::world]
            assert share.n_global == len(passes[n][i])


def _shares(spec: StreamSpec, start: Position, worker: int, workers: int):
    """Shares of one worker, holding in memory exactly what the jobs say."""
    held: set[tuple[int, int]] = set()
    for job in _jobs(spec, start, worker, workers):
        held |= {(s, p) for s, places in job.wanted.items() for p in places}
        for share in job.shares:
            assert held >= set(share.ids)
            yield share
        assert held >= job.later
        held = set(job.later)


def take(source: object, n: int) -> list[Packed]:
    items = list(itertools.islice(source, n))
    source.close()
    return items


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_come_from_the_tars_as_planned(tmp_path: Path, workers: int) -> None:
    samples = {s.key: s for s in speech(40)}
    split = write_split(tmp_path, "train-x", list(samples.values()), shard_size=16)
    spec = StreamSpec(of_split(split), 3, BatchRule(8, 0, 16))
    items = take(batches(spec, workers=workers), 10)
    assert sorted(k for item in items[:5] for k in item.keys) == sorted(samples)
    assert items[4].after == items[5].at == Position(1, 0)
    for item in items:
        for i, (key, n) in enumerate(zip(item.keys, item.lengths.tolist(), strict=True)):
            assert np.array_equal(item.features[i, :n].numpy(), samples[key].features)
            assert item.features[i, n:].abs().sum() == 0
            assert item.texts[i] == samples[key].meta["text_norm"]
    again = take(batches(spec, items[2].after, workers=workers), 7)
    assert [item.keys for item in again] == [item.keys for item in items[3:]]


def test_augmentation_follows_pass_and_key_alone(tmp_path: Path) -> None:
    shards = of_split(write_split(tmp_path, "train-x", speech(8)))
    noisy = Augmentation(noise=0.5)

    def by_key(rank: int, world: int, start: Position = START) -> dict[str, np.ndarray]:
        spec = StreamSpec(shards, 0, BatchRule(4), rank, world, noisy)
        return {
            k: item.features[i, : item.lengths[i]].numpy()
            for item in take(batches(spec, start), 2)
            for i, k in enumerate(item.keys)
        }

    whole, half = by_key(0, 1), by_key(1, 2)
    assert half
    assert all(np.array_equal(whole[k], x) for k, x in half.items())
    later = by_key(0, 1, Position(1, 0))
    assert not np.array_equal(whole["ann-0000"], later["ann-0000"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_stops_the_run_with_its_name(tmp_path: Path, workers: int) -> None:
    split = write_split(tmp_path, "train-x", speech(32), shard_size=16)
    tar = split.shards[1].path
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 0xFF
    tar.write_bytes(data)
    with pytest.raises(OmniError, match=r"train-x-000001\.tar"):
        take(batches(StreamSpec(of_split(split), 0, BatchRule(8)), workers=workers), 4)


def test_a_shard_that_disagrees_with_its_index_is_refused(tmp_path: Path) -> None:
    (shard,) = of_split(write_split(tmp_path, "train-x", speech(8)))
    short = Shard(shard.path, shard.n_frames[:-1], tuple(range(7)))
    with pytest.raises(OmniError, match="8 samples, the index says 7"):
        take(batches(StreamSpec([short], 0, BatchRule(8))), 1)
    other = Shard(shard.path, (99, *shard.n_frames[1:]), shard.places)
    with pytest.raises(OmniError, match="frames, the index says 99"):
        take(batches(StreamSpec([other], 0, BatchRule(8))), 1)


def test_reading_ahead_hands_over_errors_and_stops_with_its_user() -> None:
    def source():
        yield 1
        raise ValueError("broken")

    stream = ahead(source(), 2)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)
    endless = ahead((i for i in itertools.count()), 2)
    assert next(endless) == 0
    endless.close()


@pytest.mark.parametrize(
    "change",
    [Augmentation(noise=0.3), Augmentation(gain=0.3), Augmentation(mask=0.2), Augmentation(stretch=0.2)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(50, 6), (2, 50, 6), (1, 6)])
def test_augmentations_keep_kind_and_are_reproducible(
    change: Augmentation, shape: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    a, b = (change(x, np.random.default_rng(2)) for _ in range(2))
    assert a.dtype == x.dtype
    assert np.array_equal(a, b)
    assert np.isfinite(a).all()
    assert a.shape[-1] == 6
    if not change.stretch:
        assert a.shape == x.shape
    if shape[-2] > 1:
        assert a.shape != x.shape or not np.array_equal(a, x)
    assert change.active


def test_no_augmentation_is_inactive_and_shares_are_checked() -> None:
    assert not Augmentation().active
    with pytest.raises(OmniError):
        Augmentation(mask=1.0)
