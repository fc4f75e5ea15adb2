"""Every field of sidecar, index and meta deleted, nulled, retyped, made negative or huge, and bytes
of the tar cut and flipped: each reader gives the same data or an OmniError, in bounded memory.

.venv/bin/python -m pytest tests/omni/formats/test_mutated_shards.py
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_kit import (
    READERS,
    bounded_memory,
    good_split,
    parts_of,
    tar_of,
    vouch,
    write_parts,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate_kit import GONE, mutated

from omni.errors import OmniError

WRONG = [
    GONE, None, True, False, "", "x", "../../x", "/etc/passwd", "\x00", "\x1b[2J", 0, 1, -1, 2**31,
    2**63, -(2**70), 10**400, 0.5, -1e308, float("nan"), float("inf"), [], [[]], [None], [1] * 5,
    ["a"], {}, {"a": {}}, [{}], "9" * 5000, "train-x", "16", "é" * 300,
]  # fmt: skip
READ = ("reader", "metas", "split", "stream")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A split, and what each reader makes of it."""
    folder = good_split(tmp_path_factory.mktemp("good"))
    return folder, {how: READERS[how](folder) for how in READ}


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every field, however deep."""
    if path:
        yield path
    if isinstance(record, dict):
        for key in record:
            yield from places(record[key], (*path, key))
    elif isinstance(record, list):
        for i in range(min(len(record), 2)):
            yield from places(record[i], (*path, i))


def check(folder: Path, expected: dict[str, Any], harmless: bool = False) -> None:
    """Equal data or one line from every reader; verify never fails, and finds what readers find."""
    refused = []
    with bounded_memory():
        faults = READERS["verify"](folder)
        assert all(str(fault).isprintable() for fault in faults)
        for how in READ:
            try:
                got = READERS[how](folder)
            except OmniError as error:
                refused.append(f"{how}: {error}")
            else:
                assert same(got, expected[how]), how
    assert not refused or faults, refused
    if harmless:
        assert not refused


def same(one: Any, two: Any) -> bool:
    """Equal, arrays in it too; keys that need not be there aside."""
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, two))
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if hasattr(one, "features"):
        return same([one.key, one.meta, one.features], [two.key, two.meta, two.features])
    if isinstance(one, dict):
        needed = ("id", "text", "text_norm", "n_frames")
        return all(one[key] == two[key] for key in needed)
    return bool(one == two)


def copied(good: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    folder = tmp_path / "train-x"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good[0], folder)
    return folder


@pytest.mark.parametrize("name", ["index.json", "train-x-000000.json"])
def test_every_field_of_sidecar_and_index(
    good: tuple[Path, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    folder = copied(good, tmp_path)
    record = json.loads((folder / name).read_text())
    for n, path in enumerate(places(record)):
        # Each field meets each wrong value in some run of the hypothesis below; here a third.
        for value in WRONG[n % 3 :: 3]:
            (folder / name).write_text(json.dumps(mutated(record, path, value)))
            check(folder, good[1])


def test_every_field_of_a_meta(good: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = copied(good, tmp_path)
    parts = parts_of(folder)
    info, data = parts[3]
    record = json.loads(data)
    for n, path in enumerate(places(record)):
        for value in WRONG[n % 3 :: 3]:
            changed = json.dumps(mutated(record, path, value)).encode()
            write_parts(folder, [*parts[:3], (info, changed), *parts[4:]])
            vouch(folder)
            if path[0] not in ("text", "text_norm") or not isinstance(value, str):
                check(folder, good[1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_field(
    good: tuple[Path, dict[str, Any]], tmp_path: Path, data: st.DataObject
) -> None:
    folder = copied(good, tmp_path)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(["index.json", "train-x-000000.json"]))
        record = json.loads((folder / name).read_text())
        path = data.draw(st.sampled_from(list(places(record)) or [("x",)]))
        value = data.draw(JSON | st.sampled_from(WRONG))
        (folder / name).write_text(json.dumps(mutated(record, path, value)))
    check(folder, good[1])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), vouched=st.booleans())
def test_any_bytes_in_a_tar(
    good: tuple[Path, dict[str, Any]], tmp_path: Path, data: st.DataObject, vouched: bool
) -> None:
    folder = copied(good, tmp_path)
    tar = bytearray(tar_of(folder).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        tar[data.draw(st.integers(0, len(tar) - 1))] ^= data.draw(st.integers(1, 255))
    del tar[data.draw(st.integers(0, len(tar)) | st.just(len(tar))) :]
    tar_of(folder).write_bytes(tar)
    if vouched:  # readers may then read other features, but nothing else
        vouch(folder)
        with bounded_memory():
            for how in (*READ, "verify"):
                with contextlib.suppress(OmniError):
                    READERS[how](folder)
        return
    check(folder, good[1])


@pytest.mark.parametrize("name", ["index.json", "train-x-000000.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"7", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"{}", b"{",
        b'{"schema": 2}', b'{"schema": "1"}', b'{"schema": true}', b'{"schema": 1}',
        b'{"schema": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schema": ' + b"1" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_a_record_that_is_none(
    good: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, content: bytes
) -> None:
    folder = copied(good, tmp_path)
    (folder / name).write_bytes(content)
    assert READERS["verify"](folder)
    for how in READ:
        with pytest.raises(OmniError, match=name.replace(".", r"\.")):
            READERS[how](folder)


def test_more_fields_and_fields_twice_are_fine(
    good: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copied(good, tmp_path)
    for name in ("index.json", "train-x-000000.json"):
        text = (folder / name).read_text()
        (folder / name).write_text('{"note": [null, {"a": 1}], "n": 0, ' + text[1:])
    assert READERS["verify"](folder) == []
    check(folder, good[1], harmless=True)


def test_an_unknown_schema_is_told_by_its_number(
    good: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copied(good, tmp_path)
    (folder / "index.json").write_text('{"schema": 7}')
    with pytest.raises(OmniError, match="of shard schema 7, this version reads 1"):
        READERS["reader"](folder)
