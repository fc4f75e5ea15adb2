"""Shards that a stranger made: a small good split, and the means to break it and vouch for it."""

import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from training_kit import WIDTH, speech, write_split

from omni.formats.records import fingerprint
from omni.formats.shard_verify import verify_split
from omni.formats.shards import read, read_metas, sample_crc
from omni.formats.splits import open_split, read_split
from train.passes import BatchRule, Shard
from train.stream import StreamSpec, batches

MOST_MEMORY = 64 << 20  # bytes that reading a hostile shard of some kB may take
Parts = list[tuple[tarfile.TarInfo, bytes]]


def good_split(root: Path, n: int = 3, config: dict[str, Any] | None = None) -> Path:
    """The folder of a split of one shard."""
    return write_split(root, "train-x", speech(n), config=config).folder


def tar_of(folder: Path) -> Path:
    """Its shard."""
    return folder / "train-x-000000.tar"


def parts_of(folder: Path) -> Parts:
    """Members of its shard, utterance by utterance: npy, then json."""
    with tarfile.open(tar_of(folder), "r:") as tar:
        parts = [(info, tar.extractfile(info).read()) for info in tar.getmembers()]
    keys = [info.name.partition(".")[0] for info, _ in parts]
    return sorted(
        parts,
        key=lambda part: (
            keys.index(part[0].name.partition(".")[0]),
            part[0].name.endswith("json"),
        ),
    )


def write_parts(folder: Path, parts: Parts) -> None:
    """Write the shard anew; the sizes in the headers are those of the data."""
    with tarfile.open(tar_of(folder), "w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in parts:
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    """A header."""
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def vouch(folder: Path, **changes: Any) -> None:
    """Sidecar and index say what the tar is, as one who means harm would have them.

    Args:
        changes: fields of the sidecar besides, and of the index where it has them.
    """
    path = tar_of(folder).with_suffix(".json")
    sidecar, index = json.loads(path.read_text()), json.loads((folder / "index.json").read_text())
    data = tar_of(folder).read_bytes()
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "crc32": crcs(folder)}
    facts["crc32"] = (facts["crc32"] + sidecar["crc32"])[: changes.get("n", sidecar["n"])]
    sidecar |= facts | changes
    if "config" in changes:
        sidecar["fingerprint"] = index["fingerprint"] = fingerprint(changes["config"])
        index["fingerprint_config"] = changes["config"]
    (entry,) = index["shards"]
    entry |= {key: sidecar[key] for key in entry if key != "name"}
    index["n"], index["n_samples"] = sidecar["n"], sidecar["n_samples"]
    path.write_text(json.dumps(sidecar))
    (folder / "index.json").write_text(json.dumps(index))


def crcs(folder: Path) -> list[int]:
    """crc32 of each key of the tar, as far as it can be read."""
    found: dict[str, dict[str, bytes]] = {}
    try:
        for info, data in parts_of(folder):
            key, _, suffix = info.name.partition(".")
            found.setdefault(key, {})[suffix] = data
    except (tarfile.TarError, AttributeError, KeyError, ValueError, OSError):
        pass  # it is meant to be broken
    return [sample_crc(part) for part in found.values()]


def npy(array: np.ndarray, **how: Any) -> bytes:
    """An array as NumPy writes it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **how)
    return buffer.getvalue()


def npy_claiming(header: bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An array whose header says what it likes."""
    size = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + header + data


def frames(n: int, width: int = WIDTH, dtype: Any = np.float16) -> np.ndarray:
    """(n, width) zeros."""
    return np.zeros((n, width), dtype)


def take_a_pass(folder: Path) -> list[Any]:
    """What the trainer's stream makes of the split in one pass."""
    split = open_split(folder)
    shards = [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n))) for e in split.shards]
    stream = batches(StreamSpec(shards, 0, BatchRule(2)))
    taken = []
    try:
        for item in stream:
            taken.append((item.keys, item.texts, item.features.numpy()))
            if item.after.number > 0:
                return taken
    finally:
        stream.close()
    return taken


READERS: dict[str, Callable[[Path], Any]] = {
    "reader": lambda folder: list(read(e.path for e in open_split(folder).shards)),
    "metas": lambda folder: [m for e in open_split(folder).shards for m in read_metas(e.path)],
    "split": lambda folder: read_split(open_split(folder)),
    "stream": take_a_pass,
    "verify": verify_split,
}


@contextmanager
def bounded_memory() -> Iterator[None]:
    """What happens inside takes at most MOST_MEMORY at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
