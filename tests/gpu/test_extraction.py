"""Features made on a card: the same bytes again, near ones at another batch size, none before they
are copied.

.venv/bin/python -m pytest -m gpu tests/gpu/test_extraction.py
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from extract_kit import command, deterministic_bytes
from speech_kit import noise_tree, tiny_encoder

from bench.card.encoding import random_encoder
from cli.extract import main
from extract.encode import BATCHES_IN_FLIGHT, BatchEncoder, OwnedWindow, Pending
from omni.formats import shards
from omni.whisper.window import EXACT


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, and an encoder."""
    root = tmp_path_factory.mktemp("parts")
    noise_tree(root, 12, seconds=1.5)
    tiny_encoder(root / "encoder")
    return root


def extract(parts: Path, out: Path, device: str, batch: int) -> Path:
    args = command(parts, parts / "encoder", out, "--batch-size", str(batch))
    args[args.index("--device") + 1] = device
    assert main(args) == 0
    return out / "dev-clean"


def features(folder: Path) -> dict[str, np.ndarray]:
    tars = sorted(folder.glob("*.tar"))
    return {s.key: s.features.astype(np.float64) for tar in tars for s in shards.read_shard(tar)}


def far(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest relative error of an utterance."""
    assert a.keys() == b.keys()
    return max(float(np.linalg.norm(a[k] - b[k]) / np.linalg.norm(a[k])) for k in a)


def test_the_same_bytes_twice_and_near_ones_at_another_batch_size(
    parts: Path, tmp_path: Path, device: str
) -> None:
    first, second = (extract(parts, tmp_path / str(i), device, 4) for i in range(2))
    assert deterministic_bytes(first) == deterministic_bytes(second)
    other = extract(parts, tmp_path / "other", device, 2)
    assert far(features(first), features(other)) < 5e-3


def test_two_cards_make_the_same_shards(
    parts: Path, tmp_path: Path, two_devices: tuple[str, str]
) -> None:
    """Of one kind; what is read before it is copied is garbage, not a rounding."""
    a, b = (extract(parts, tmp_path / str(i), name, 4) for i, name in enumerate(two_devices))
    assert far(features(a), features(b)) < 5e-3


def test_a_card_against_the_cpu(parts: Path, tmp_path: Path, device: str) -> None:
    here, cpu = (extract(parts, tmp_path / str(i), d, 4) for i, d in enumerate((device, "cpu")))
    assert far(features(cpu), features(here)) < 2e-2


@pytest.fixture
def first_is_current(two_devices: tuple[str, str]) -> torch.device:
    """The second device, while the first is the current one."""
    if two_devices[0] != "cpu":
        torch.cuda.set_device(0)
    return torch.device(two_devices[1])


def test_events_of_a_card_that_is_not_current_wait_for_its_copies(
    first_is_current: torch.device,
) -> None:
    """Batches in flight on the second card, read as soon as their last mark is passed, against the
    same batches with the whole device waited for."""
    device = first_is_current
    big = device.type == "cuda"
    dtype = torch.float16 if big else torch.float32
    encoder = random_encoder(device, dtype, 6 if big else 1)
    size, n = (64, BATCHES_IN_FLIGHT) if big else (1, 2)
    encode = BatchEncoder(encoder, "last", EXACT, size)
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(16_000 * 4)).astype(np.float32) for _ in range(n)]
    owners = [Pending({"id": str(i)}, size) for i in range(n)]
    batches = [
        [OwnedWindow(wave, owner, place) for place in range(size)]
        for wave, owner in zip(waves, owners, strict=True)
    ]
    seconds = {"mel": 0.0, "encode": 0.0}
    in_flight = [encode(batch, seconds).batch for batch in batches]
    read = []
    for batch in in_flight:
        assert batch is not None
        batch.ready(seconds)
        read.append(batch.features.clone())
    if big:
        torch.cuda.synchronize(device)
    for got, batch in zip(read, in_flight, strict=True):
        assert batch is not None
        assert torch.equal(got, batch.features)
        assert got.abs().max() > 0
