"""Shards are written by several threads and committed behind the next one's back: in what order, how
many at once, and what is left when a disk fails meanwhile.

.venv/bin/python -m pytest tests/extract/test_making.py
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extract_kit import deterministic_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_kit import tiny_encoder

from extract import ahead
from extract.batches import Batches
from extract.encode import BatchEncoder
from extract.pipeline import Job, Stats, extract_shards, feature_config
from extract.plan import make_plan
from omni.errors import OmniError
from omni.formats import shard_writer
from omni.formats.manifest import Manifest, Utterance
from omni.formats.shard_writer import ShardWriter, SplitSpec, committed
from omni.formats.shards import read_metas
from omni.whisper.encoder import WhisperEncoder, frame_count, load_encoder, split_windows
from omni.whisper.window import EXACT, Window

LONG = 30  # seconds that a test waits for what must happen


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> WhisperEncoder:
    return load_encoder(str(tiny_encoder(tmp_path_factory.mktemp("tiny"), layers=1)))


def wave_of(n: int, seed: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def job_of(
    folder: Path,
    encoder: WhisperEncoder,
    lengths: list[int],
    monkeypatch: pytest.MonkeyPatch,
    **more: Any,
) -> Job:
    """Recordings of these many samples that no file holds, four a shard."""
    waves = {f"u{i:02d}": wave_of(n, i) for i, n in enumerate(lengths)}
    monkeypatch.setattr(ahead, "load_piece", lambda path, *_: waves[path.stem])
    rows = [Utterance(i, audio=f"{i}.wav", n_samples=len(w)) for i, w in waves.items()]
    choices = {"batch_size": 2, "decode_workers": 2, "window": EXACT, "dtype": "float16"} | more
    dtype = choices.pop("dtype")
    config = feature_config(encoder, "last", dtype, choices["window"])
    return Job(
        spec=SplitSpec(folder / "talks", "talks", "train", config, 4),
        manifest=Manifest("talks", "train", str(folder), tuple(rows)),
        plan=make_plan(list(waves), 4),
        layers="last",
        max_failures=0,
        **choices,
    )


def extract(job: Job, encoder: WhisperEncoder) -> Stats:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return extract_shards(job, encoder, range(len(job.plan)))
    finally:
        torch.set_num_threads(threads)


def syncs_of_tars(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
    """`before` is called with a shard's number before its tar is synced, and may wait or fail."""
    real = os.fsync

    def fsync(handle: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        if name.startswith(".talks-") and ".json." not in name:
            before(int(name.split(".")[1].rpartition("-")[2]))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


# ---- what happens at once ----------------------------------------------------------------------


def test_the_next_shard_begins_while_the_last_is_synced(
    tmp_path: Path, encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, encoder, [800] * 8, monkeypatch)
    launched, begun = [], threading.Event()
    real = BatchEncoder.__call__

    def call(self: BatchEncoder, windows: list, seconds: dict) -> object:
        launched.append(windows[0].owner.meta["id"])
        if len(launched) == 3:  # four utterances, two a batch: this one is the second shard's
            begun.set()
        return real(self, windows, seconds)

    def wait(shard: int) -> None:
        assert shard or begun.wait(LONG), "the first shard's commit holds up the second"

    monkeypatch.setattr(BatchEncoder, "__call__", call)
    syncs_of_tars(monkeypatch, wait)
    assert extract(job, encoder).shards == 2


def test_two_shards_are_synced_at_once(
    tmp_path: Path, encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, encoder, [800] * 8, monkeypatch)
    both = threading.Barrier(2)
    syncs_of_tars(monkeypatch, lambda shard: both.wait(LONG) and None)
    assert extract(job, encoder).shards == 2


def test_two_utterances_are_stored_at_once(
    tmp_path: Path, encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, encoder, [800] * 4, monkeypatch)
    both, real = threading.Barrier(2), shard_writer.encode_features

    def encode(*args: object) -> dict[str, bytes]:
        both.wait(LONG)
        return real(*args)

    monkeypatch.setattr(shard_writer, "encode_features", encode)
    assert extract(job, encoder).utterances == 4


def test_no_more_than_three_shards_are_open(
    tmp_path: Path, encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is filled, two wait for the disk, which is slow until as many are open as may be."""
    job = job_of(tmp_path, encoder, [800] * 24, monkeypatch)
    most, three, real = [0], threading.Event(), ShardWriter.__init__

    def open_one(self: ShardWriter, spec: SplitSpec, shard: int) -> None:
        is_open = 1 + shard - sum(1 for i in range(shard) if committed(spec, i))
        most[0] = max(most[0], is_open)
        if is_open >= 3:
            three.set()
        real(self, spec, shard)

    def wait(shard: int) -> None:
        assert three.wait(LONG), "nothing was begun while a shard waited for the disk"

    monkeypatch.setattr(ShardWriter, "__init__", open_one)
    syncs_of_tars(monkeypatch, wait)
    assert extract(job, encoder).shards == 6
    assert most == [3]


# ---- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_disk_that_fails_in_the_background_ends_the_run_in_one_line(
    tmp_path: Path, encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    job = job_of(tmp_path, encoder, [800] * 12, monkeypatch)

    def full(shard: int) -> None:
        if shard == bad:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        syncs_of_tars(patch, full)
        with pytest.raises(OmniError, match="No space left") as told:
            extract(job, encoder)
    assert "\n" not in str(told.value)
    folder = job.spec.folder
    there = {i for i in range(3) if committed(job.spec, i)}
    assert bad not in there
    assert {path.name for path in folder.iterdir()} == {
        f"talks-{i:06d}.{end}" for i in there for end in ("tar", "json")
    }
    for i in range(3):
        if i not in there:
            extract_shards(job, encoder, [i])
    whole = job_of(tmp_path / "whole", encoder, [800] * 12, monkeypatch)
    extract(whole, encoder)
    again, never_failed = deterministic_bytes(folder), deterministic_bytes(whole.spec.folder)
    assert again == never_failed


def test_a_shard_with_too_many_failures_is_not_committed_in_the_background(
    tmp_path: Path, encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, encoder, [800] * 12, monkeypatch)
    real, last = shard_writer.encode_features, [job.plan[1][-1]]

    def encode(features: np.ndarray, dtype: str, where: str = "") -> dict[str, bytes]:
        if where == f"u{last[0]:02d}":
            features = features + np.float32(np.inf)
        return real(features, dtype, where)

    monkeypatch.setattr(shard_writer, "encode_features", encode)
    with pytest.raises(OmniError, match="more than 0 utterances failed"):
        extract(job, encoder)
    assert {path.stem for path in job.spec.folder.iterdir()} <= {"talks-000000", "talks-000002"}


# ---- the same bytes -----------------------------------------------------------------------------


def plainly(job: Job, encoder: WhisperEncoder, shard: int, folder: Path) -> bytes:
    """The tar of a shard, made in one thread without a ring, a pool or a commit."""
    spec = SplitSpec(folder, "talks", "train", job.spec.config, 4)
    rows = [job.manifest.utterances[i] for i in job.plan[shard]]
    waves = {row.id: ahead.load_piece(Path(f"{row.id}.wav")) for row in rows}
    pieces: dict[tuple[str, int], np.ndarray] = {}

    def encode(windows: list[tuple[np.ndarray, tuple[str, int]]]) -> None:
        frames = encoder.encode_windows([wave for wave, _ in windows], "last", job.window)
        for (_, whose), piece in zip(windows, frames.split(), strict=True):
            pieces[whose] = piece.numpy()

    batches: Batches[tuple[np.ndarray, tuple[str, int]]] = Batches(job.batch_size)
    for row in rows:
        for place, wave in enumerate(split_windows(waves[row.id])):
            length = job.window.length(frame_count(len(wave)))
            if full := batches.add(length, (wave, (row.id, place))):
                encode(full)
    for left in batches.rest():
        encode(left)
    (real,) = list(job.spec.folder.glob(f"talks-{shard:06d}.tar"))
    metas = {meta["id"]: meta for _, meta in read_metas(real)}
    with ShardWriter(spec, shard) as writer:
        for row in rows:
            mine = [pieces[whose] for whose in sorted(pieces) if whose[0] == row.id]
            writer.add(metas[row.id], np.concatenate(mine, axis=-2))
        writer.commit("", {}, {})
        return writer.path.read_bytes()


LENGTHS = st.one_of(st.integers(1, 40_000), st.integers(480_001, 490_000), st.just(960_001))


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=9),
    batch=st.integers(1, 4),
    workers=st.integers(1, 5),
    window=st.sampled_from([EXACT, Window(0.0)]),
    dtype=st.sampled_from(["float16", "int8"]),
)
def test_any_plan_gives_the_bytes_of_one_thread(
    tmp_path_factory,
    encoder: WhisperEncoder,
    lengths: list[int],
    batch: int,
    workers: int,
    window: Window,
    dtype: str,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            more = {"batch_size": batch, "decode_workers": workers}
            job = job_of(folder, encoder, lengths, monkeypatch, window=window, dtype=dtype, **more)
            extract_shards(job, encoder, range(len(job.plan)))
            for shard in range(len(job.plan)):
                tar = job.spec.folder / f"talks-{shard:06d}.tar"
                assert tar.read_bytes() == plainly(job, encoder, shard, folder / "plain")
    finally:
        torch.set_num_threads(threads)
