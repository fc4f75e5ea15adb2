"""The shard format: what is written is read, by three readers; what is damaged is found.

.venv/bin/python -m pytest tests/omni/formats/test_shards.py
"""

import gc
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.errors import OmniError
from omni.formats.manifest import Problem
from omni.formats.shard_verify import verify_split
from omni.formats.shard_writer import (
    ShardWriter,
    SplitSpec,
    clear_split,
    committed,
    encode_features,
    refuse_beyond,
    write_index,
)
from omni.formats.shards import escape_key, read, read_shard
from omni.formats.splits import find_splits, open_split

CONFIG = {"encoder": "abc", "layers": "last", "dtype": "float16", "window": "30"}


def meta(i: int, n_frames: int) -> dict:
    return {
        "id": f"1-2-{i:04d}",
        "split": "train-x",
        "speaker": "1",
        "chapter": "2",
        "sex": "F",
        "text": "É " * i,
        "text_norm": "é " * i,
        "n_samples": 320 * n_frames,
        "n_frames": n_frames,
        "n_chunks": 1,
        "sha256": "0" * 64,
    }


def spec_of(root: Path, **config) -> SplitSpec:
    return SplitSpec(root / "train-x", "train-x", "train", {**CONFIG, **config}, 3)


def write_split(root: Path, shards: int = 2, n: int = 3, **config) -> SplitSpec:
    spec = spec_of(root, **config)
    rng = np.random.default_rng(0)
    for shard in range(shards):
        with ShardWriter(spec, shard) as writer:
            for i in range(n):
                T = 4 + i
                writer.add(meta(shard * n + i, T), rng.standard_normal((T, 8)).astype(np.float32))
            writer.fail("1-2-9999", "audio is empty", Problem.UNREADABLE)
            writer.commit("plan", {"torch": "x"}, {"decode": 1.0})
    write_index(spec, shards)
    return spec


def planned(shard: int, n: int = 3) -> list[str]:
    return [f"1-2-{shard * n + i:04d}" for i in range(n)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    spec = write_split(tmp_path)
    split = open_split(spec.folder)
    assert (split.split, split.role, split.n, len(split.shards)) == ("train-x", "train", 6, 2)
    assert split.fingerprint_config == CONFIG
    samples = list(read(entry.path for entry in split.shards))
    assert [s.meta["id"] for s in samples] == planned(0) + planned(1)
    assert all(s.features.dtype == np.float16 for s in samples)
    assert [s.features.shape[0] for s in samples] == [n for e in split.shards for n in e.n_frames]
    assert [len(s.meta["text_norm"]) for s in samples] == [
        n for e in split.shards for n in e.n_text
    ]
    rng = np.random.default_rng(0)
    assert (samples[0].features == rng.standard_normal((4, 8)).astype(np.float16)).all()
    assert [s.split for s in find_splits(tmp_path)] == ["train-x"]
    failures = (spec.folder / "failures.jsonl").read_text().splitlines()
    assert json.loads(failures[0]) == {
        "id": "1-2-9999",
        "kind": "unreadable",
        "reason": "audio is empty",
    }


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    one, two = write_split(tmp_path / "a"), write_split(tmp_path / "b")
    names = sorted(path.name for path in one.folder.iterdir())
    assert names == sorted(path.name for path in two.folder.iterdir())
    assert len(names) == 6
    for name in names:
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name


def test_int8_keeps_a_scale_for_each_channel(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, dtype="int8", layers=[1, 2])
    values = np.random.default_rng(3).standard_normal((2, 5, 8)).astype(np.float32)
    values[..., 3] *= 100  # a massive channel must not cost the others their precision
    with ShardWriter(spec, 0) as writer:
        writer.add(meta(0, 5), values)
        writer.commit("plan", {}, {})
    back = next(read_shard(spec.folder / "train-x-000000.tar")).features.astype(np.float32)
    assert back.shape == (2, 5, 8)
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    assert (np.abs(back - values) <= 0.51 * scale + 1e-3 * np.abs(values)).all()


def test_webdataset_and_datasets_read_the_shards(tmp_path: Path) -> None:
    import datasets
    import webdataset as wds

    spec = write_split(tmp_path)
    tars = [str(entry.path) for entry in open_split(spec.folder).shards]
    plain = list(wds.WebDataset(tars, shardshuffle=False))
    assert [json.loads(s["json"])["id"] for s in plain] == planned(0) + planned(1)
    assert np.load(io.BytesIO(plain[0]["npy"])).shape == (4, 8)
    table = datasets.load_dataset(
        "webdataset", data_files={"train": tars}, split="train", streaming=True
    )
    rows = list(table)
    assert [row["json"]["id"] for row in rows] == planned(0) + planned(1)
    assert np.asarray(rows[1]["npy"], dtype=np.float16).shape == (5, 8)


@given(st.text(min_size=1, max_size=30))
def test_keys_have_no_dot_and_no_slash_and_are_unique(text: str) -> None:
    from urllib.parse import unquote

    key = escape_key(text)
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-%")
    assert unquote(key) == text


def test_an_id_longer_than_ustar_allows(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    long = {**meta(0, 4), "id": "x/" * 90}
    with ShardWriter(spec, 0) as writer:
        writer.add(long, np.zeros((4, 8), np.float32))
        writer.commit("plan", {}, {})
    assert next(read_shard(spec.folder / "train-x-000000.tar")).meta["id"] == long["id"]


# ---- what must be refused ---------------------------------------------------------------------


def first_tar(spec: SplitSpec) -> Path:
    return spec.folder / "train-x-000000.tar"


def member_end(tar: Path, index: int) -> int:
    """Offset after the padded data of a member."""
    with tarfile.open(tar) as archive:
        member = archive.getmembers()[index]
        return member.offset_data + -(-member.size // 512) * 512


def vouch(tar: Path) -> None:
    """Make the sidecar's size agree, as if the file had been damaged before it was measured."""
    sidecar = json.loads(tar.with_suffix(".json").read_text())
    sidecar["bytes"] = tar.stat().st_size
    tar.with_suffix(".json").write_text(json.dumps(sidecar))


@pytest.mark.parametrize("size_agrees", [False, True])
@pytest.mark.parametrize("place", ["member boundary", "inside a header", "inside data"])
def test_a_truncated_tar_is_found(tmp_path: Path, place: str, size_agrees: bool) -> None:
    tar = first_tar(write_split(tmp_path))
    end = member_end(tar, 1)
    cut = {"member boundary": end, "inside a header": end + 100, "inside data": end - 700}[place]
    tar.write_bytes(tar.read_bytes()[:cut])
    if size_agrees:
        vouch(tar)
    with pytest.raises(OmniError, match=r"damaged shard.*train-x-000000\.tar"):
        list(read_shard(tar))


@pytest.mark.parametrize("where", ["data", "header", "padding"])
def test_a_flipped_byte_is_found(tmp_path: Path, where: str) -> None:
    tar = first_tar(write_split(tmp_path))
    blob = bytearray(tar.read_bytes())
    with tarfile.open(tar) as archive:
        member = archive.getmembers()[3]
    offset = {
        "data": member.offset_data + member.size - 1,
        "header": member.offset + 3,
        "padding": -1,
    }
    blob[offset[where]] ^= 1
    tar.write_bytes(blob)
    with pytest.raises(OmniError, match=r"damaged shard.*train-x-000000\.tar"):
        list(read_shard(tar))


@pytest.mark.parametrize("suffix", ["pyd", "pth", "pickle"])
def test_a_member_that_could_run_code_is_not_decoded(tmp_path: Path, suffix: str) -> None:
    tar = first_tar(write_split(tmp_path))
    with tarfile.open(tar, "a") as archive:
        evil = tarfile.TarInfo(f"1-2-0002.{suffix}")
        evil.size = len(b"cos\nsystem\n(S'touch /tmp/evil'\ntR.")
        archive.addfile(evil, io.BytesIO(b"cos\nsystem\n(S'touch /tmp/evil'\ntR."))
    vouch(tar)
    with pytest.raises(OmniError, match=f"member .{suffix}"):
        list(read_shard(tar))


def test_an_npy_with_objects_is_not_decoded(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    tar = first_tar(write_split(tmp_path))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with tarfile.open(tar, "w") as archive:
        for name, data in (("npy", buffer.getvalue()), ("json", json.dumps(meta(0, 4)).encode())):
            info = tarfile.TarInfo(f"1-2-0000.{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    vouch(tar)
    with pytest.raises(OmniError, match="1-2-0000 can't be decoded"):
        list(read_shard(tar))
    assert spec.folder.is_dir()


def test_a_shard_without_sidecar_or_index_is_not_read(tmp_path: Path) -> None:
    spec = write_split(tmp_path)
    (spec.folder / "index.json").unlink()
    with pytest.raises(OmniError, match="run the same omni-extract"):
        open_split(spec.folder)
    with pytest.warns(UserWarning, match="not finished"):
        assert find_splits(tmp_path) == []
    first_tar(spec).with_suffix(".json").unlink()
    with pytest.raises(OmniError, match="no such file"):
        next(read_shard(first_tar(spec)))


def test_a_sidecar_that_lacks_a_field_vouches_for_nothing(tmp_path: Path) -> None:
    write_split(tmp_path)
    sidecar = next(tmp_path.rglob("*-000000.json"))
    content = json.loads(sidecar.read_text())
    del content["crc32"]
    sidecar.write_text(json.dumps(content))
    with pytest.raises(OmniError, match="`crc32`: field required"):
        list(read([sidecar.with_suffix(".tar")]))
    assert any("`crc32`: field required" in fault.what for fault in verify_split(sidecar.parent))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_features_that_are_not_finite_are_never_stored(value: float) -> None:
    with pytest.raises(OmniError, match="not finite"):
        encode_features(np.full((3, 4), value, np.float32), "float16", "1-2-0000")


# ---- resume -----------------------------------------------------------------------------------


def test_a_committed_shard_is_kept_and_another_configuration_refused(tmp_path: Path) -> None:
    spec = write_split(tmp_path)
    sidecar = committed(spec, 0)
    assert sidecar is not None
    assert sidecar["plan"] == "plan"
    assert committed(spec, 2) is None
    with pytest.raises(OmniError, match="layers last there, \\[3\\] now"):
        committed(spec_of(tmp_path, layers=[3]), 0)
    first_tar(spec).write_bytes(b"short")
    assert committed(spec, 0) is None


def test_more_shards_than_planned_are_refused_and_clearing_takes_all(tmp_path: Path) -> None:
    spec = write_split(tmp_path)
    refuse_beyond(spec, 2)
    with pytest.raises(OmniError, match="more shards"):
        refuse_beyond(spec, 1)
    clear_split(spec.folder)
    assert list(spec.folder.iterdir()) == []


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(OmniError, match="not finite"), ShardWriter(spec, 0) as writer:
        writer.add(meta(0, 1), np.full((1, 4), np.nan))
    assert list(spec.folder.iterdir()) == []


def test_a_writer_that_gives_up_says_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    spec = spec_of(tmp_path)
    writer = ShardWriter(spec, 0)
    with writer:  # never committed, and a part of the tar still buffered
        writer.add(meta(0, 1), np.zeros((1, 4), np.float32))
    del writer
    gc.collect()
    assert complaints == []
    assert list(spec.folder.iterdir()) == []


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_any_lengths_come_back(tmp_path_factory, lengths: list[int]) -> None:
    spec = spec_of(tmp_path_factory.mktemp("any"))
    with ShardWriter(spec, 0) as writer:
        for i, T in enumerate(lengths):
            writer.add(meta(i, T), np.full((T, 4), i, np.float32))
        writer.commit("plan", {}, {})
    samples = list(read_shard(first_tar(spec)))
    assert [s.features.shape[0] for s in samples] == lengths
    assert all((s.features == i).all() for i, s in enumerate(samples))
