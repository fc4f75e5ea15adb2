"""A store that answers half, never, late or with another length: one line, and the wait ends.

.venv/bin/python -m pytest tests/omni/formats/test_bad_stores.py
"""

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_kit import READERS, good_split
from store_kit import misbehaving
from upath import UPath

from omni.errors import OmniError
from omni.formats import stores
from omni.formats.shards import read_shard
from omni.formats.splits import find_splits
from omni.formats.stores import ask, read_bytes

pytestmark = pytest.mark.filterwarnings(
    "ignore:UPath 'patient'"
)  # a file system of this test alone


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stores, "STALL_SECONDS", 0.5)
    good_split(tmp_path)
    return tmp_path


def test_a_store_that_behaves_is_read(folder: Path) -> None:
    with misbehaving(folder, "") as url:
        (split,) = find_splits(url)
        assert len(list(read_shard(split.shards[0].path))) == 3
        assert [s.split for s in find_splits(f"{url}/tr*")] == ["train-x"]


@pytest.mark.parametrize("only", ["index.json", "000000.json", "000000.tar"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("stalls", "stalls"), ("silent", "stalls"), ("drips", "stalls"), ("halves", None),
        ("shortens", None), ("lengthens", None), ("refuses", "can't read"),
    ],
)  # fmt: skip
def test_a_store_that_does_not_is_told(folder: Path, how: str, said: str | None, only: str) -> None:
    with misbehaving(folder, how, only) as url, pytest.raises(OmniError, match=said) as caught:
        READERS["reader"](UPath(f"{url}/train-x"))
    assert only in caught.value.where


@pytest.mark.parametrize("how", ["stalls", "silent", "refuses"])
@pytest.mark.parametrize("pattern", ["", "/train-x", "/tr*", "/{train,dev}-x", "/**"])
def test_a_store_that_does_not_list_is_told(folder: Path, how: str, pattern: str) -> None:
    with misbehaving(folder, how) as url, pytest.raises(OmniError):
        find_splits(url + pattern)


def test_the_trainer_s_stream_ends_too(folder: Path) -> None:
    with misbehaving(folder, "drips", ".tar") as url, pytest.raises(OmniError, match="stalls"):
        READERS["stream"](UPath(f"{url}/train-x"))


class Slow(io.RawIOBase):
    """A store's file: a few bytes at each question, each after a while of a clock of its own."""

    def __init__(self, clock: list[float], seconds: float, n_bytes: int, size: int) -> None:
        self.clock, self.seconds, self.n_bytes, self.left = clock, seconds, n_bytes, size

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        self.clock[0] += self.seconds
        n = min(self.n_bytes, self.left, size)
        self.left -= n
        return bytes(n)


@pytest.mark.parametrize(
    ("seconds", "n_bytes", "ends"),
    [(59, 1, False), (1, 512, False), (0.4, 800, False), (59, 1 << 18, True), (1, 8192, True)],
)
def test_a_store_that_drips_for_ever_is_given_up(
    monkeypatch: pytest.MonkeyPatch, seconds: float, n_bytes: int, ends: bool
) -> None:
    """None of them stalls: something comes within a minute, each time."""
    clock = [0.0]
    size = 1000 * n_bytes
    monkeypatch.setattr(stores.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(
        stores, "_open_remote", lambda path, ahead: Slow(clock, seconds, n_bytes, size)
    )
    monkeypatch.setattr(stores, "_patient", lambda work, path: work())
    if ends:
        assert len(read_bytes(UPath("memory://bucket/x"), size)) == size
        return
    with pytest.raises(OmniError, match=r"the store is too slow: .* bytes in .* s") as caught:
        read_bytes(UPath("memory://bucket/x"), size)
    assert "memory://bucket/x" in caught.value.where
    assert clock[0] < 2 * stores.PATIENCE_SECONDS


def test_a_fast_start_does_not_buy_a_day() -> None:
    pace = stores.Pace()
    pace.took(1.0, 1 << 30)
    for _ in range(4):
        pace.took(59.0, 1)
    pace.took(63.0, 1)  # the first window ends, with what came at its start
    for _ in range(5):
        pace.took(59.0, 1)
    with pytest.raises(stores.TooSlowError):
        pace.took(59.0, 1)


def test_a_dripping_server_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "STALL_SECONDS", 30.0)
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(stores, "CHUNK", 2)  # so that each question is answered in time
    with misbehaving(folder, "drips", ".tar") as url, pytest.raises(OmniError, match="too slow"):
        READERS["reader"](UPath(f"{url}/train-x"))


def raiser(error: Exception) -> Callable[[Any], Any]:
    def question(_: Any) -> Any:
        raise error

    return question


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), ConnectionResetError("gone"), RuntimeError("session is closed"), KeyError("x"),
     PermissionError(13, "Permission denied"), FileNotFoundError("x"), AttributeError("x")],
)  # fmt: skip
def test_whatever_a_store_raises_is_told(error: Exception) -> None:
    with pytest.raises(OmniError, match="memory://bucket/x"):
        ask(UPath("memory://bucket/x"), raiser(error))


def test_mistakes_of_our_own_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        ask(tmp_path, raiser(AttributeError("x")))
    with pytest.raises(OmniError, match="can't read"):
        ask(tmp_path / ("x" * 5000), lambda p: p.stat())
    with pytest.raises(OmniError, match="can't read"):
        ask(tmp_path / "a\0b", lambda p: p.stat())


def test_no_more_is_read_than_may_be(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OmniError, match="longer than 4 bytes"):
        read_bytes(path, 4)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(OmniError, match="longer than"):
        read_bytes(path, 1 << 20)


def test_threads_that_wait_are_daemons(folder: Path) -> None:
    with misbehaving(folder, "silent", ".tar") as url, pytest.raises(OmniError):
        list(read_shard(f"{url}/train-x/train-x-000000.tar"))
    assert all(t.daemon for t in threading.enumerate() if t.name == "store")


@pytest.mark.parametrize(
    "url",
    ["reference://x", "zip://a::nowhere", "tar://a::nowhere", "ftp://127.0.0.1:1/x", "cached://x"],
)
@pytest.mark.filterwarnings("ignore:UPath")
def test_a_store_that_can_t_be_opened_is_named(url: str) -> None:
    """A scheme that needs more than a URL, an archive that is not there, a host that refuses."""
    with pytest.raises(OmniError) as caught:
        find_splits(url)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)
