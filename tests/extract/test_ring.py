"""Host buffers are few, used again, and never before everybody is done with them. No card is needed.

.venv/bin/python -m pytest tests/extract/test_ring.py
"""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from played_card import PlayedEncoder, PlayedEvent, play_card

from extract import ahead
from extract.encode import BATCHES_IN_FLIGHT, Batch, BatchEncoder, OwnedWindow, Pending
from extract.pipeline import Job, extract_shards, feature_config
from extract.plan import make_plan
from extract.ring import Buffer, Ring
from omni.formats.manifest import Manifest, Utterance
from omni.formats.shard_writer import SplitSpec
from omni.formats.shards import read_shard
from omni.whisper import encoder as encoder_module
from omni.whisper.encoder import WhisperEncoder
from omni.whisper.mel import _filters
from omni.whisper.samples import assemble
from omni.whisper.window import EXACT


class Copy:
    """A card's copy that ends when it is waited for."""

    def __init__(self) -> None:
        self.waited = False

    def synchronize(self) -> None:
        self.waited = True


def test_there_are_no_more_than_so_many() -> None:
    ring = Ring(2, torch.float32, pinned=False)
    first, second = ring.take(), ring.take()
    got: list[Buffer] = []
    taker = threading.Thread(target=lambda: got.append(ring.take()))
    taker.start()
    taker.join(0.2)
    assert got == []
    ring.free(second)
    taker.join(20)
    assert got == [second] != [first]


def test_a_new_one_is_made_before_a_busy_one_is_waited_for() -> None:
    ring = Ring(2, torch.float32, pinned=False)
    first, copy = ring.take(), Copy()
    ring.free(first, busy=copy)
    second = ring.take()
    assert second is not first
    assert not copy.waited
    ring.free(second)
    assert ring.take() is first
    assert copy.waited
    ring.free(first)
    assert [ring.take(), ring.take()] == [second, first]


def test_a_buffer_grows_and_stays() -> None:
    buffer = Buffer(torch.float16, pinned=False)
    large = buffer.first(1000)
    assert (large.shape, large.dtype) == ((1000,), torch.float16)
    assert buffer.first(3).data_ptr() == buffer.first(1024).data_ptr() == large.data_ptr()
    assert buffer.first(1025).shape == (1025,)


@given(st.lists(st.integers(1, 40), max_size=5), st.integers(0, 3), st.integers(0, 9))
def test_rows_hold_samples_and_silence(lengths: list[int], more: int, longer: int) -> None:
    waves = [np.arange(1, n + 1, dtype=np.float32) for n in lengths]
    out = torch.full((len(waves) + more, max([1, *lengths]) + longer), torch.nan)
    assert assemble(waves, out) is out
    for row, wave in zip(out, waves, strict=False):
        assert row.tolist() == [*wave, *[0] * (len(row) - len(wave))]
    assert not out[len(waves) :].any()


# ---- the path of a card ------------------------------------------------------------------------


def windows_of(value: float, n: int = 2) -> list[OwnedWindow]:
    owner = Pending({"id": "u"}, n)
    return [OwnedWindow(np.full(640, value, np.float32), owner, i) for i in range(n)]


def launched(encode: BatchEncoder, value: float) -> Batch:
    batch = encode(windows_of(value), {"mel": 0.0, "encode": 0.0}).batch
    assert batch is not None
    return batch


def test_features_stay_until_the_writer_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    play_card(monkeypatch)
    encode = BatchEncoder(PlayedEncoder(), "last", EXACT, 2)
    batches = [launched(encode, i) for i in range(BATCHES_IN_FLIGHT + 1)]
    more: list[Batch] = []
    launcher = threading.Thread(target=lambda: more.append(launched(encode, 99)))
    launcher.start()
    launcher.join(0.3)
    assert more == []  # every buffer is with the writer
    assert [b.features[0, 0].item() for b in batches] == list(range(BATCHES_IN_FLIGHT + 1))
    place = batches[1].features.data_ptr()
    batches[1].done()
    launcher.join(20)
    assert more[0].features.data_ptr() == place
    assert more[0].features[:, 0].tolist() == [99] * 4


def test_samples_stay_until_the_card_has_copied_them(monkeypatch: pytest.MonkeyPatch) -> None:
    play_card(monkeypatch)
    encode = BatchEncoder(PlayedEncoder(), "last", EXACT, 2)
    batches = []
    for i in range(3):
        batches.append(launched(encode, i))
        assert PlayedEvent.waited == []
    batches.append(launched(encode, 3))
    assert PlayedEvent.waited == [batches[0].marks[1]]  # behind the copy and the log-mel


def test_log_mel_is_made_on_the_card_from_raw_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def buffer(n: int) -> torch.Tensor:
        asked.append(n)
        return torch.empty(n)

    monkeypatch.setattr(encoder_module, "assemble", lambda waves, out, each: out)
    monkeypatch.setattr(torch.Tensor, "pin_memory", None)
    encoder = WhisperEncoder.__new__(WhisperEncoder)
    encoder.device, encoder.dtype, encoder.n_mels = torch.device("cuda:0"), torch.float16, 80
    _filters.cache_clear()
    try:
        with fake_cuda() as operations:
            waves = [np.zeros(n, np.float32) for n in (16_000, 8_000)]
            mel, counts = encoder.mel(waves, pad_to=4, buffer=buffer)
    finally:
        _filters.cache_clear()  # of fake tensors
    assert (mel.device.type, mel.dtype, mel.shape) == ("cuda", torch.float16, (4, 80, 3000))
    assert counts == [50, 25]
    assert asked == [4 * 16_000]
    first = operations.seen[0]
    assert (first.name, first.dtype, first.shape) == ("_to_copy", torch.float32, (4, 16_000))
    assert "_fft_r2c" in {operation.name for operation in operations.seen}


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 3))
def test_a_card_run_stores_every_frame(
    tmp_path_factory, seconds: list[int], batch: int, workers: int
) -> None:
    """Windows of one recording come back in several batches, whose buffers were used again since."""
    folder = tmp_path_factory.mktemp("card")
    waves = {
        f"u{i}": (np.arange(16_000 * n) // 320 % 1999 / 2).astype(np.float32)
        for i, n in enumerate(seconds)
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        play_card(monkeypatch)
        monkeypatch.setattr(ahead, "load_piece", lambda path, *_: waves[path.stem])
        rows = [Utterance(i, audio=f"{i}.wav", n_samples=len(w)) for i, w in waves.items()]
        manifest = Manifest("talks", "train", str(folder), tuple(rows))
        config = feature_config(PlayedEncoder(), "last", "float16")
        spec = SplitSpec(folder / "talks", "talks", "train", config, 4)
        plan = make_plan(list(waves), 4)
        job = Job(spec, manifest, plan, "last", batch, workers, 0)
        stats = extract_shards(job, PlayedEncoder(), range(len(plan)))
    assert (stats.utterances, stats.failures, stats.shards) == (len(waves), 0, len(plan))
    stored = [s for path in sorted(Path(spec.folder).glob("*.tar")) for s in read_shard(path)]
    assert [s.key for s in stored] == [rows[i].id for shard in plan for i in shard]
    for sample in stored:
        n = len(waves[sample.key]) // 320
        assert (sample.features[:, 0] == waves[sample.key][::320].astype(np.float16)).all()
        assert (sample.features[:, 1] == np.arange(n) % 1500).all()
