"""What is done ahead of its use: pinning where the batch is made, and how many workers there are."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_kit import speech, write_split

import train.feed
from train.ahead import (
    MOST_WORKERS,
    WORKER_DEPTH,
    ahead,
    choose_workers,
    cores_here,
    ranks_here,
    shared_memory_here,
)
from train.augment import Augmentation
from train.data import TrainingData, gather
from train.feed import feed
from train.options import TrainOptions
from train.passes import BatchRule
from train.ranks import Peers
from train.stream import START, Packed, StreamSpec, batches


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    write_split(tmp_path, "train-x", speech(24))
    write_split(tmp_path, "dev-x", speech(4, 3, 900, "bob"), role="eval")
    return gather([str(tmp_path)])


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[threading.Thread, torch.Size]]:
    """A card that is there as far as pinning goes; (thread, shape) of what was pinned."""
    seen = []

    def pin_memory(self: torch.Tensor, *_: object) -> torch.Tensor:
        seen.append((threading.current_thread(), self.shape))
        return self.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    accelerator = torch.accelerator
    monkeypatch.setattr(accelerator, "is_available", lambda: True)
    monkeypatch.setattr(accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(accelerator, "set_device_index", lambda index: None)
    return seen


def take(stream: object, n: int) -> list[Packed]:
    items = list(itertools.islice(stream, n))
    stream.close()
    return items


OPTIONS = {"batch_size": 8, "buffer": 24, "mask": 0.2}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_producer_pins_and_not_who_asks(
    data: TrainingData, pinned: list[tuple[threading.Thread, torch.Size]], workers: int
) -> None:
    """Features and gains of every batch, in another thread than that of the step."""
    options = TrainOptions(workers=workers, **OPTIONS)
    card = torch.device("cuda")
    items = take(feed(options, data, Peers(device=card), START), 5)
    shapes = {shape for thread, shape in pinned}
    for item in items:
        assert item.draws is not None
        assert item.draws.gains is not None
        assert {item.features.shape, item.draws.gains.shape} <= shapes
    assert threading.main_thread() not in {thread for thread, _ in pinned}
    # Pinned or not, nothing of a batch is lost on its way.
    change = Augmentation(options.noise, options.gain, options.mask, options.stretch)
    spec = StreamSpec(data.shards, 0, BatchRule(8, 0, 24), draw=change.draw)
    for item, plain in zip(items, take(batches(spec), 5), strict=True):
        assert item.features.equal(plain.features)
        assert item.lengths.equal(plain.lengths)
        assert item[2:7] == plain[2:7]
        assert item.draws.each == plain.draws.each
        assert item.draws.gains.equal(plain.draws.gains)


def test_a_cpu_augments_where_it_reads_and_pins_nothing(
    data: TrainingData, pinned: list[tuple[threading.Thread, torch.Size]]
) -> None:
    items = take(feed(TrainOptions(**OPTIONS), data, Peers(), START), 3)
    assert all(item.draws is None for item in items)
    assert pinned == []
    plain = take(feed(TrainOptions(noise=0, gain=0, stretch=0, batch_size=8, buffer=24), data, Peers(), START), 3)  # fmt: skip
    assert [item.keys for item in items] == [item.keys for item in plain]
    assert not any(a.features.equal(b.features) for a, b in zip(items, plain, strict=True))


def test_without_augmentation_a_card_draws_nothing(
    data: TrainingData, pinned: list[tuple[threading.Thread, torch.Size]]
) -> None:
    options = TrainOptions(noise=0, gain=0, stretch=0, batch_size=8, workers=0)
    (item,) = take(feed(options, data, Peers(device=torch.device("cuda:1")), START), 1)
    assert item.draws is None
    assert item.features.shape in {shape for _, shape in pinned}


def test_an_interrupt_ends_all_that_is_read_ahead() -> None:
    """Though the traceback holds what was read from; in torch when Python ends, a thread aborts it."""

    def reader() -> Iterator[int]:
        yield from ahead((i for i in itertools.count()), 1)

    outer = ahead((i for i in reader()), 1)
    next(outer)
    with pytest.raises(KeyboardInterrupt) as caught:
        outer.throw(KeyboardInterrupt())
    assert caught.tb is not None
    assert [t for t in threading.enumerate() if t.name == "read-ahead"] == []


GB = 1 << 30


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "workers"),
    [
        ("cpu", 64, 1, 0), ("cuda", 1, 1, 0), ("cuda", 2, 1, 1), ("cuda:3", 16, 1, 8),
        ("cuda", 16, 8, 1), ("cuda", 8, 8, 0), ("cuda", 4, 8, 0), ("cuda", 26, 8, 2),
    ],
)  # fmt: skip
def test_workers_by_default(device: str, cores: int, ranks: int, workers: int) -> None:
    assert choose_workers(device, cores, ranks, 40_000_000, 64 * GB) == workers


def test_a_container_s_64_mb_of_shared_memory_are_too_few_for_workers() -> None:
    """32 utterances of 24 s: a worker that finds no room dies of a bus error."""
    assert choose_workers("cuda", 16, 1, 32 * 1200 * 1024, 64 << 20) == 0
    assert choose_workers("cuda", 16, 1, 32 * 1200 * 1024, 256 << 20) == 2


@given(st.integers(1, 512), st.integers(1, 16), st.integers(0, GB), st.integers(0, 64 * GB))
def test_workers_of_all_ranks_fit_cores_and_shared_memory(
    cores: int, ranks: int, batch: int, shared: int
) -> None:
    workers = choose_workers("cuda", cores, ranks, batch, shared)
    assert 0 <= workers <= MOST_WORKERS
    assert workers == 0 or ranks * (workers + 1) <= cores
    assert ranks * workers * (WORKER_DEPTH + 1) * batch <= shared


@pytest.mark.parametrize(("told", "ranks"), [("8", 8), ("0", 1), ("x", 1), ("", 1), (None, 1)])
def test_torchrun_tells_how_many_share_the_machine(told: str | None, ranks: int) -> None:
    assert ranks_here({} if told is None else {"LOCAL_WORLD_SIZE": told}) == ranks


def test_the_machine_is_asked() -> None:
    assert cores_here() >= 1
    assert shared_memory_here() >= 0


def test_the_largest_batch_is_known_before_there_is_one(data: TrainingData) -> None:
    longest = max(max(s.n_frames) for s in data.shards)
    for options, world in ((TrainOptions(batch_size=8, workers=0), 1), (TrainOptions(batch_size=8, workers=0), 2), (TrainOptions(batch_frames=100, workers=0), 1)):  # fmt: skip
        bound = train.feed._largest_batch(options, data, world)
        items = take(feed(options, data, Peers(0, world), START), 6)
        assert max(item.features.nbytes for item in items) <= 1.2 * bound  # stretched on a CPU
        assert bound <= 8 * longest * 32


def test_a_run_that_names_workers_gets_them(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(train.feed, "batches", lambda spec, start, workers, pin, depth: asked.append((workers, pin, depth)))  # fmt: skip
    monkeypatch.setattr(train.feed, "cores_here", lambda: 3)
    monkeypatch.setattr(train.feed, "shared_memory_here", lambda: GB)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for workers in (None, 0, 7):
        for device in ("cpu", "cuda:0"):
            feed(TrainOptions(workers=workers), data, Peers(device=torch.device(device)), START)
    assert asked == [(0, False, 4), (2, True, 2), (0, False, 4), (0, True, 4), (7, False, 2), (7, True, 2)]  # fmt: skip
