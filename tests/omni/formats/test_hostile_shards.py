"""Hand-made hostile shards, vouched for by their sidecar and index: one line each, found by all.

.venv/bin/python -m pytest tests/omni/formats/test_hostile_shards.py
"""

import bz2
import copy
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_kit import (
    READERS,
    bounded_memory,
    frames,
    good_split,
    member,
    npy,
    npy_claiming,
    parts_of,
    tar_of,
    vouch,
    write_parts,
)
from training_kit import CONFIG, speech, write_split

from cli import extract as cli_extract
from omni.errors import OmniError
from omni.formats.shards import read
from omni.formats.splits import open_split
from train.passes import BatchRule, Shard
from train.stream import StreamSpec, batches

MIDDLE = 1  # the utterance that is broken, of three


def n_frames(folder: Path, i: int = MIDDLE) -> int:
    return json.loads(tar_of(folder).with_suffix(".json").read_text())["n_frames"][i]


def with_npy(make: Callable[[int], bytes]) -> Callable[[Path], None]:
    """The middle utterance's features are what `make` gives for its number of frames."""

    def change(folder: Path) -> None:
        parts = parts_of(folder)
        parts[2 * MIDDLE] = (parts[2 * MIDDLE][0], make(n_frames(folder)))
        write_parts(folder, parts)
        vouch(folder)

    return change


def with_meta(**fields: object) -> Callable[[Path], None]:
    """Fields of the middle utterance's meta; `...` takes one away."""

    def change(folder: Path) -> None:
        parts = parts_of(folder)
        info, data = parts[2 * MIDDLE + 1]
        meta = {**json.loads(data), **fields}
        meta = {key: value for key, value in meta.items() if value is not ...}
        parts[2 * MIDDLE + 1] = info, json.dumps(meta).encode()
        write_parts(folder, parts)
        vouch(folder)

    return change


def with_parts(make: Callable[[list], list]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write_parts(folder, make(parts_of(folder)))
        vouch(folder)

    return change


def with_bytes(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tar_of(folder).write_bytes(make(tar_of(folder).read_bytes()))
        vouch(folder)

    return change


def claim(descr: str = "<f2", fortran: str = "False", shape: str = "(24, 16)") -> bytes:
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()


def broken_value(value: float) -> Callable[[int], bytes]:
    def make(n: int) -> bytes:
        x = frames(n)
        x[n // 2, 3] = value
        return npy(x)

    return make


def sized(header_size: bytes) -> Callable[[bytes], bytes]:
    """The first header's size field says this; its checksum is right."""

    def make(data: bytes) -> bytes:
        head = bytearray(data[:512])
        head[124:136] = header_size.ljust(12, b"\0")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        return bytes(head) + data[512:]

    return make


def kinded(kind: bytes) -> Callable[[list], list]:
    return lambda parts: [*parts[:2], (member("ann-0001.npy", type=kind, linkname="/etc/passwd"), b""), *parts[2:]]  # fmt: skip


def pax(value: str, key: str = "comment") -> Callable[[list], list]:
    return lambda parts: [(member(parts[0][0].name, pax_headers={key: value}), parts[0][1]), *parts[1:]]  # fmt: skip


def bomb(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: compress(data + bytes(200 << 20))


SHARDS: dict[str, Callable[[Path], None]] = {
    "npy of petabytes": with_npy(lambda n: npy_claiming(claim(shape=f"({n}, 99999999999)"))),
    "npy of petabytes of frames": with_npy(lambda n: npy_claiming(claim(shape="(9999999999999, 16)"))),
    "npy of too many digits": with_npy(lambda n: npy_claiming(claim(shape=f"({'9' * 5000}, 16)"))),
    "npy in Fortran order": with_npy(lambda n: npy(np.asfortranarray(frames(n)))),
    "npy of fields": with_npy(lambda n: npy(np.zeros(n, [("a", "<f2", 16)]))),
    "npy of objects": with_npy(lambda n: npy(np.array([{"a": 1}] * n, dtype=object), allow_pickle=True)),
    "npy of strings": with_npy(lambda n: npy(np.array(["x" * 16] * n))),
    "npy of dates": with_npy(lambda n: npy(np.zeros((n, 16), "<M8[s]"))),
    "npy, big-endian": with_npy(lambda n: npy(frames(n, dtype=">f2"))),
    "npy of float32": with_npy(lambda n: npy(frames(n, dtype=np.float32))),
    "npy of float64": with_npy(lambda n: npy(frames(n, dtype=np.float64))),
    "npy of int8": with_npy(lambda n: npy(frames(n, dtype=np.int8))),
    "npy of no frames": with_npy(lambda n: npy(frames(0))),
    "npy of no width": with_npy(lambda n: npy(frames(n, 0))),
    "npy of a negative size": with_npy(lambda n: npy_claiming(claim(shape=f"({n}, -16)"))),
    "npy of negative sizes": with_npy(lambda n: npy_claiming(claim(shape=f"(-{n}, -16)"), bytes(n * 32))),
    "npy of one dimension": with_npy(lambda n: npy(frames(n).reshape(-1))),
    "npy of three dimensions": with_npy(lambda n: npy(frames(n)[None])),
    "npy of no dimension": with_npy(lambda n: npy(np.float16(1))),
    "npy of another width": with_npy(lambda n: npy(frames(n, 8))),
    "npy with a frame less": with_npy(lambda n: npy(frames(n - 1))),
    "npy with a frame more": with_npy(lambda n: npy(frames(n + 1))),
    "npy cut off": with_npy(lambda n: npy(frames(n))[:-1]),
    "npy cut off in its header": with_npy(lambda n: npy(frames(n))[:40]),
    "npy of nothing": with_npy(lambda n: b""),
    "npy with bytes more": with_npy(lambda n: npy(frames(n)) + b"x"),
    "npy with a header of 10 MB": with_npy(lambda n: npy_claiming(b"(" * 10_000_000, version=b"\2\0")),
    "npy that is an expression": with_npy(lambda n: npy_claiming(b"{'a': " * 5000, version=b"\3\0")),
    "npy of version 9": with_npy(lambda n: npy(frames(n)).replace(b"\x01\x00", b"\x09\x00", 1)),
    "npy that is a zip": with_npy(lambda n: b"PK\3\4" + bytes(100)),
    "NaN": with_npy(broken_value(np.nan)),
    "infinity": with_npy(broken_value(np.inf)),
    "negative infinity": with_npy(broken_value(-np.inf)),
    "text_norm a number": with_meta(text_norm=5),
    "text null": with_meta(text=None),
    "text a list": with_meta(text=["a"]),
    "no text_norm": with_meta(text_norm=...),
    "no speaker": with_meta(speaker=...),
    "text_norm longer than told": with_meta(text_norm="x" * 1000),
    "id a number": with_meta(id=1),
    "id of another": with_meta(id="bob-0001"),
    "id that leads out": with_meta(id="../../x"),
    "n_frames a string": with_meta(n_frames="24"),
    "n_frames true": with_meta(n_frames=True),
    "n_frames negative": with_meta(n_frames=-24),
    "n_frames absurd": with_meta(n_frames=10**30),
    "n_samples a float": with_meta(n_samples=1e300),
    "meta a list": with_parts(lambda p: [*p[:3], (p[3][0], b"[]"), *p[4:]]),
    "meta nested deep": with_parts(lambda p: [*p[:3], (p[3][0], b"[" * 100_000), *p[4:]]),
    "meta with a field nested deep": with_parts(
        lambda p: [*p[:3], (p[3][0], b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), *p[4:]]
    ),
    "meta that is no text": with_parts(lambda p: [*p[:3], (p[3][0], b"\xff\xfe"), *p[4:]]),
    "meta of 20 MB": with_parts(lambda p: [*p[:3], (p[3][0], b" " * (20 << 20) + p[3][1]), *p[4:]]),
    "no meta": with_parts(lambda p: [*p[:3], *p[4:]]),
    "no features": with_parts(lambda p: [*p[:2], *p[3:]]),
    "a member twice": with_parts(lambda p: [*p[:3], p[2], *p[3:]]),
    "a key twice": with_parts(lambda p: [*p[:4], *p[2:4]]),
    "a key again later": with_parts(lambda p: [*p[:2], *p[2:4], *p[:2]]),
    "another order": with_parts(lambda p: [*p[2:4], *p[:2], *p[4:]]),
    "features first, metas after": with_parts(lambda p: [p[0], p[2], p[4], p[1], p[3], p[5]]),
    "an utterance more": with_parts(
        lambda p: [*p, (member("bob.npy"), p[0][1]), (member("bob.json"), p[1][1])]
    ),
    "an utterance less": with_parts(lambda p: p[:-2]),
    "a scale for float16": with_parts(
        lambda p: [p[0], (member(p[0][0].name[:-3] + "scale.npy"), npy(np.ones(16, np.float32))), *p[1:]]
    ),
    "a name with a folder": with_parts(lambda p: [(member("../" + p[0][0].name), p[0][1]), *p[1:]]),
    "an absolute name": with_parts(lambda p: [(member("/tmp/" + p[0][0].name), p[0][1]), *p[1:]]),
    "a name without suffix": with_parts(lambda p: [*p, (member("x"), b"")]),
    "a name that is no text": with_parts(lambda p: [*p, (member("\udcff.npy"), b"")]),
    "a name that moves the cursor": with_parts(lambda p: [*p, (member("\x1b[2Jx.npy"), b"")]),
    "a pickle": with_parts(lambda p: [*p, (member("ann-0002.pyd"), b"cos\nsystem\n")]),
    "a link": with_parts(kinded(tarfile.SYMTYPE)),
    "a hard link": with_parts(kinded(tarfile.LNKTYPE)),
    "a device": with_parts(kinded(tarfile.CHRTYPE)),
    "a pipe": with_parts(kinded(tarfile.FIFOTYPE)),
    "a folder": with_parts(kinded(tarfile.DIRTYPE)),
    "a sparse member": with_parts(pax("1", "GNU.sparse.major")),
    "an old sparse member": with_parts(kinded(tarfile.GNUTYPE_SPARSE)),
    "a PAX header of 1 MB": with_parts(pax("x" * (1 << 20))),
    "a PAX size of exabytes": with_parts(pax("9" * 18, "size")),
    "a PAX size that is none": with_parts(pax("-1", "size")),
    "a member of 8 GiB": with_bytes(sized(b"77777777777")),
    "a member of exabytes": with_bytes(sized(b"\x80" + b"\x7f" * 11)),
    "a member of a negative size": with_bytes(sized(b"\xff" * 12)),
    "a size that is no number": with_bytes(sized(b"zzz")),
    "gzip": with_bytes(gzip.compress),
    "a gzip bomb": with_bytes(bomb(lambda data: gzip.compress(data, 1))),
    "a bzip2 bomb": with_bytes(bomb(lambda data: bz2.compress(data, 1))),
    "an xz bomb": with_bytes(bomb(lambda data: lzma.compress(data, preset=0))),
    "nothing": with_bytes(lambda data: b""),
    "zeros": with_bytes(lambda data: bytes(10240)),
    "no end mark": with_bytes(lambda data: data.rstrip(b"\0")[:512]),
    "noise": with_bytes(lambda data: np.random.default_rng(0).bytes(20_000)),
}  # fmt: skip
# What only the features' bytes tell, which `read_metas` jumps over.
FEATURES = [name for name in SHARDS if name.startswith("npy")] + ["NaN", "infinity", "negative infinity"]  # fmt: skip
FEATURES += ["no features", "a scale for float16", "another order"]


@pytest.mark.parametrize("name", SHARDS)
def test_a_hostile_shard_is_told_in_a_line(tmp_path: Path, name: str) -> None:
    folder = good_split(tmp_path)
    SHARDS[name](folder)
    with bounded_memory():
        for how, reader in READERS.items():
            if how == "verify":
                faults = reader(folder)
                assert faults
                assert all(str(fault).isprintable() for fault in faults)
            elif how == "metas" and name in FEATURES:
                continue
            else:
                with pytest.raises(OmniError, match=r"train-x-000000\.tar"):
                    reader(folder)


def test_the_good_split_is_good(tmp_path: Path) -> None:
    folder = good_split(tmp_path)
    vouch(folder)
    assert READERS["verify"](folder) == []
    assert len(READERS["reader"](folder)) == len(READERS["metas"](folder)) == 3
    assert sum(len(keys) for keys, _, _ in READERS["stream"](folder)) == 3


@pytest.mark.parametrize("name", ["NaN", "infinity", "negative infinity"])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_key_of_features_that_are_not_finite_is_named(
    tmp_path: Path, name: str, workers: int
) -> None:
    folder = good_split(tmp_path)
    SHARDS[name](folder)
    (fault,) = READERS["verify"](folder)
    assert (fault.key, "not finite" in fault.what) == ("ann-0001", True)
    split = open_split(folder)
    shards = [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n))) for e in split.shards]
    stream = batches(StreamSpec(shards, 0, BatchRule(2)), workers=workers)
    with pytest.raises(OmniError, match="ann-0001 has features that are not finite"):
        next(stream)


@pytest.mark.parametrize(
    "scale",
    [
        np.full(16, np.nan, np.float32), np.full(16, 1e38, np.float32), np.ones(8, np.float32),
        np.ones(16, np.float64), np.ones((1, 16), np.float32), np.float32(1),
    ],
)  # fmt: skip
def test_a_scale_that_does_not_fit_is_told(tmp_path: Path, scale: np.ndarray) -> None:
    folder = good_split(tmp_path, config={**CONFIG, "dtype": "int8"})
    parts = parts_of(folder)
    place = next(i for i, (info, _) in enumerate(parts) if info.name == "ann-0001.scale.npy")
    parts[place] = parts[place][0], npy(scale)
    write_parts(folder, parts)
    vouch(folder)
    assert [fault.key for fault in READERS["verify"](folder)] == ["ann-0001"]
    with pytest.raises(OmniError, match="ann-0001"):
        READERS["reader"](folder)


@pytest.mark.parametrize(
    "config",
    [
        {**CONFIG, "dtype": "int8"}, {**CONFIG, "layers": [3]}, {**CONFIG, "layers": [0, 3]},
        {**CONFIG, "dtype": "float32"}, {**CONFIG, "layers": []}, {**CONFIG, "layers": "first"},
    ],
)  # fmt: skip
def test_features_that_are_not_what_the_fingerprint_says(tmp_path: Path, config: dict) -> None:
    folder = good_split(tmp_path)
    vouch(folder, config=config)
    assert READERS["verify"](folder)
    for how in ("reader", "stream"):
        with pytest.raises(OmniError):
            READERS[how](folder)


def test_shards_of_different_widths_are_told(tmp_path: Path) -> None:
    """Each is right in itself; a batch of both could not be made."""
    split = write_split(tmp_path, "train-x", speech(4), shard_size=2)
    narrow = [copy.copy(s) for s in speech(4)[2:]]
    for sample in narrow:
        object.__setattr__(sample, "features", sample.features[:, :8])
    write_split(tmp_path / "other", "train-x", speech(2) + narrow, shard_size=2)
    for suffix in ("tar", "json"):
        source = tmp_path / "other" / "train-x" / f"train-x-000001.{suffix}"
        (split.folder / source.name).write_bytes(source.read_bytes())
    (split.folder / "index.json").write_bytes((tmp_path / "other/train-x/index.json").read_bytes())
    with pytest.raises(OmniError, match="width 8"):
        list(read(e.path for e in open_split(split.folder).shards))
    for how in ("split", "stream"):
        with pytest.raises(OmniError, match="width"):
            READERS[how](split.folder)


@pytest.mark.parametrize("which", ["index.json", "train-x-000000.json", "train-x-000000.tar"])
@pytest.mark.parametrize("what", ["folder", "pipe", "gone", "dangling", "endless"])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path, which: str, what: str) -> None:
    folder = good_split(tmp_path)
    (folder / which).unlink()
    if what == "folder":
        (folder / which).mkdir()
    elif what == "pipe":
        os.mkfifo(folder / which)
    elif what == "dangling":
        (folder / which).symlink_to("nowhere")
    elif what == "endless":
        (folder / which).symlink_to("/dev/zero")
    assert READERS["verify"](folder)
    with pytest.raises(OmniError):
        READERS["reader"](folder)


def test_verify_and_its_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = good_split(tmp_path)
    assert cli_extract.main(["--verify", str(tmp_path)]) == 0
    SHARDS["a name that moves the cursor"](folder)
    assert cli_extract.main(["--verify", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert err == ""
    assert cli_extract.main(["--verify", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: no shards there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    folder = good_split(tmp_path)
    for path in (tar_of(folder), tar_of(folder).with_suffix(".json"), folder / "index.json"):
        path.chmod(0)
        assert READERS["verify"](folder)
        with pytest.raises(OmniError, match="Permission denied"):
            READERS["reader"](folder)
        path.chmod(0o644)


def test_a_file_that_vanishes_or_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = good_split(tmp_path)
    opened = Path.open

    class Failing(io.BufferedReader):
        def readinto(self, buffer: object, /) -> int:
            raise OSError(5, "Input/output error")

    def fail(self: Path, *args: object, **more: object) -> object:
        file = opened(self, *args, **more)
        return Failing(file.detach()) if self.suffix == ".tar" else file

    monkeypatch.setattr(Path, "open", fail)
    assert "Input/output error" in str(READERS["verify"](folder)[0])
    with pytest.raises(OmniError, match="Input/output error"):
        READERS["reader"](folder)
