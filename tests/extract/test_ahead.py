"""Audio decoded ahead is bounded by its length, whatever the recordings' lengths and headers.

.venv/bin/python -m pytest tests/extract/test_ahead.py
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract import ahead
from extract.ahead import SECONDS_AHEAD, Decoded, decode_ahead
from extract.inputs import NO_FILE
from extract.lengths import expected_seconds
from extract.pipeline import Job
from extract.plan import make_plan
from extract.run import bytes_needed
from omni.formats.manifest import Manifest, Problem, Utterance
from omni.formats.shard_writer import SplitSpec

FEW = 3  # utterances asked for in advance, beside four a thread


class Held:
    """A decoder of made-up recordings that counts what is decoded and not yet taken."""

    def __init__(self, lengths: list[float]) -> None:
        self.lengths, self.now, self.most = lengths, 0.0, 0.0
        self._lock = threading.Lock()

    def decode(self, utterance: Utterance, path: Path) -> Decoded:
        seconds = self.lengths[int(utterance.id)]
        with self._lock:
            self.now += seconds
            self.most = max(self.most, self.now)
        wave = np.broadcast_to(np.float32(0), (int(seconds * 16_000),))  # no memory
        return Decoded(utterance, wave, "", NO_FILE, Problem.NONE, "", 0.0)

    def all(self, workers: int, promised: list[float], file: Path = Path("/none")) -> Iterator[str]:
        rows = [
            (Utterance(str(i), n_samples=int(s * 16_000), sample_rate=16_000), file)
            for i, s in enumerate(promised)
        ]
        with ThreadPoolExecutor(workers) as pool:
            for item in decode_ahead(rows, pool, workers, FEW):
                time.sleep(0.0005)  # the encoder's turn: the threads run ahead as far as they may
                yield item.utterance.id
                with self._lock:
                    self.now -= self.lengths[int(item.utterance.id)]


@pytest.fixture
def by_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "expected_seconds", lambda utterance, _: utterance.seconds)


@pytest.mark.usefixtures("by_header")
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(
    "lengths",
    [
        [3600.0] * 9,  # a folder of episodes
        [900.0, 1.0] * 12,
        [1.0] * 40 + [7200.0] * 3 + [1.0] * 40,
        [12.0] * 200,
        [1199.0] * 20,
    ],
)
def test_never_more_than_the_bound_or_one_recording(
    lengths: list[float], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(lengths)
    monkeypatch.setattr(ahead, "decode", held.decode)
    assert list(held.all(workers, lengths)) == [str(i) for i in range(len(lengths))]
    taken = max(lengths)  # what the encoder has at hand is no longer ahead
    assert held.most <= max(SECONDS_AHEAD * workers, max(lengths)) + taken


@pytest.mark.usefixtures("by_header")
def test_short_ones_are_there_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held([1.0] * 100)
    monkeypatch.setattr(ahead, "decode", held.decode)
    assert len(list(held.all(2, [1.0] * 100))) == 100
    assert FEW < held.most <= FEW + 4 * 2 + 2


@pytest.mark.parametrize(
    ("seconds", "size"),
    [
        (3600.0, 180_000),  # an hour of silence in FLAC
        (7200.0, 400_000),
        (900.0, 15_000),
        (3600.0, 12_000_000),  # a podcast at 27 kbit/s
    ],
)
def test_silence_packs_small_and_is_bounded_by_its_length(
    tmp_path: Path, seconds: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.flac").write_bytes(bytes(size))
    held = Held([seconds] * 12)
    monkeypatch.setattr(ahead, "decode", held.decode)
    assert len(list(held.all(2, held.lengths, tmp_path / "a.flac"))) == 12
    assert held.most <= max(SECONDS_AHEAD * 2, seconds) + seconds


# ---- lengths that no header tells ------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**63 - 1), st.integers(0, 100_000))
def test_no_header_makes_a_file_longer_than_it_can_be(
    tmp_path_factory, n_samples: int, rate: int, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "some.wav"
    path.write_bytes(bytes(size))
    utterance = Utterance("a", audio="some.wav", n_samples=n_samples, sample_rate=rate)
    assert 0 <= expected_seconds(utterance, path) <= size / 250
    assert 0 <= utterance.seconds <= 31 * 24 * 3600


@pytest.mark.parametrize("n_samples", [0, -1, 2**63 - 1, 2**36, 16_000 * 3600 * 24 * 365])
def test_the_shards_never_need_more_than_there_could_be(tmp_path: Path, n_samples: int) -> None:
    (tmp_path / "a.flac").write_bytes(bytes(200_000))
    row = Utterance("a", audio="a.flac", n_samples=n_samples, sample_rate=16_000)
    manifest = Manifest("talks", "train", str(tmp_path), (row, Utterance("b", audio="none.flac")))
    spec = SplitSpec(tmp_path, "talks", "train", {"dtype": "float16"}, 2)
    job = Job(spec, manifest, make_plan(["a", "b"], 2), "last", 2, 2, 0)
    lengths = [expected_seconds(*row) for row in job.rows(0)]
    assert 200_000 < bytes_needed(job, lengths, 512) < 10_000_000


def test_a_header_that_can_hold_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(bytes(32_000))
    row = Utterance("a", audio="a.flac", n_samples=32_000, sample_rate=16_000)
    assert expected_seconds(row, tmp_path / "a.flac") == 2.0
    assert expected_seconds(row, tmp_path / "none.flac") == 0.0
    alone = Utterance("a", audio="a.flac", n_samples=32_000, problem=Problem.NO_TEXT)
    assert expected_seconds(alone, tmp_path / "a.flac") == 0.0
