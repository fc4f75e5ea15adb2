"""The shards on disk, as readers see them; `shards/README.md` describes every file and field.

A damaged tar reads as a short one without a word, so nothing is believed here that the sidecar does
not confirm: size, sha256, count, first and last id. No pickle is ever read. Must not know how
features are made; writing is `omni.formats.shard_writer`.
"""

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from omni.errors import OmniError
from omni.formats.files import locate

SHARD_SCHEMA = 1
INDEX_NAME = "index.json"
FAILURES_NAME = "failures.jsonl"
_MEMBERS = {"npy", "json", "scale.npy"}
# What every reader here relies on; the writer writes more.
_SIDECAR_FIELDS = {
    "split", "role", "n", "first", "last", "bytes", "sha256", "fingerprint", "config", "n_samples",
    "n_frames", "n_text", "crc32", "failures", "shard_size", "plan",
}  # fmt: skip
_SAFE = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class Sample:
    """One utterance: `features` float16 (T, d), or (L, T, d) where several layers were stored."""

    key: str
    meta: dict[str, Any]
    features: np.ndarray


def read(paths: Iterable[str | Path], check_hash: bool = True) -> Iterator[Sample]:
    """Samples of shards, one shard after another; see `read_shard`."""
    for path in paths:
        yield from read_shard(path, check_hash)


def read_shard(path: str | Path, check_hash: bool = True) -> Iterator[Sample]:
    """Samples of one tar in order.

    Args:
        path: the tar, local or a URL; its sidecar lies beside it.
        check_hash: compare the bytes' sha256 at the end, which finds a flipped bit.

    Raises:
        OmniError: no sidecar, wrong size, a damaged or foreign member, a wrong count, first or last
            id, or a wrong sha256; it names the shard, and the key where there is one.
    """
    path = locate(path)
    sidecar = _checked_sidecar(path)
    n, first, last = 0, "", ""
    with path.open("rb") as file:
        stream = HashingReader(file) if check_hash else None
        for key, members in groups(path, stream or file):
            sample = decode_sample(path, key, members)
            first, last = first or sample.meta["id"], sample.meta["id"]
            n += 1
            yield sample
        if stream is not None and stream.digest() != sidecar["sha256"]:
            raise damaged(path, "its bytes have another sha256 than its sidecar says")
    if (n, first, last) != (sidecar["n"], sidecar["first"], sidecar["last"]):
        raise damaged(
            path, f"{n} samples from {first!r} to {last!r}, its sidecar says {sidecar['n']}"
        )


def read_metas(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, meta) of each sample of one tar in order, without its features: seeks over them.

    Raises:
        OmniError: as `read_shard`, but for what only reading every byte can find.
    """
    path = locate(path)
    sidecar = _checked_sidecar(path)
    n = 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                data = tar.extractfile(member) if suffix == "json" else None
                if data is not None:
                    n += 1
                    yield key, json.load(data)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise damaged(path, f"the tar can't be read ({type(error).__name__}: {error})") from error
    if n != sidecar["n"]:
        raise damaged(path, f"{n} samples, its sidecar says {sidecar['n']}")


def fingerprint(config: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of what decides a feature's value."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def escape_key(utterance_id: str) -> str:
    """An id as a member key: what is outside [A-Za-z0-9_-] as %XX of its UTF-8 bytes."""
    return _SAFE.sub(lambda m: "".join(f"%{b:02X}" for b in m.group().encode()), utterance_id)


def shard_name(split: str, shard: int) -> str:
    """Name of a shard without suffix."""
    return f"{split}-{shard:06d}"


def read_sidecar(tar: Path) -> dict[str, Any]:
    """The sidecar of a tar.

    Raises:
        OmniError: it is missing, unreadable, of another schema, or lacks a field.
    """
    mend = "run omni-extract --repair, or extract again"
    sidecar = read_json(tar.with_suffix(".json"), mend)
    lacks = sorted(_SIDECAR_FIELDS - sidecar.keys())
    if lacks:
        raise OmniError(
            f"the sidecar lacks {', '.join(lacks)}", str(tar.with_suffix(".json")), mend
        )
    return sidecar


def _checked_sidecar(tar: Path) -> dict[str, Any]:
    """The sidecar of a tar whose size is the one it says."""
    sidecar = read_sidecar(tar)
    size = tar.stat().st_size if tar.is_file() else -1
    if size != sidecar["bytes"]:
        raise damaged(tar, f"{size} bytes, its sidecar says {sidecar['bytes']}")
    return sidecar


def decode_sample(path: Path, key: str, members: dict[str, bytes]) -> Sample:
    """Members of one key to a sample.

    Raises:
        OmniError: a member missing, of a foreign kind, or not what its JSON says.
    """
    foreign = sorted(set(members) - _MEMBERS)
    if foreign:
        raise damaged(path, f"{key} has a member .{foreign[0]}, which no shard holds: not decoded")
    try:
        meta = json.loads(members["json"])
        features = _load_npy(members["npy"])
        if features.dtype == np.int8:
            features = (features * _load_npy(members["scale.npy"])).astype(np.float16)
        if escape_key(meta["id"]) != key or features.shape[-2] != meta["n_frames"]:
            raise ValueError(f"features {features.shape} don't fit {meta['id']}")
    except (KeyError, ValueError, TypeError, EOFError, OSError) as error:
        raise damaged(path, f"{key} can't be decoded ({type(error).__name__}: {error})") from error
    if features.dtype != np.float16:
        raise damaged(path, f"{key} holds {features.dtype}, not float16 or int8")
    return Sample(key, meta, features)


def sample_crc(members: dict[str, bytes]) -> int:
    """crc32 over the members' bytes in the order of their names: finds which key has a fault."""
    crc = 0
    for name in sorted(members):
        crc = zlib.crc32(members[name], crc)
    return crc


def groups(path: Path, stream: Any) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Members of each key, as webdataset streams and groups them; ends at the file's end.

    Raises:
        OmniError: the tar's structure is broken.
    """
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    try:
        files = ({**file, "__url__": path.name} for file in tar_file_iterator(stream))
        for group in group_by_keys(files):
            key = group.pop("__key__")
            yield key, {k: v for k, v in group.items() if not k.startswith("__")}
        while stream.read(1 << 20):  # the padding after the last member belongs to the hash
            continue
    except (tarfile.TarError, EOFError, ValueError, AttributeError) as error:
        raise damaged(path, f"the tar can't be read ({type(error).__name__}: {error})") from error


def _load_npy(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def read_json(path: Path, mend: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise OmniError("no such file", str(path), mend) from None
    except (OSError, ValueError) as error:
        raise OmniError(f"not readable ({error})", str(path), mend) from error
    if not isinstance(content, dict) or content.get("schema") != SHARD_SCHEMA:
        raise OmniError(f"not of shard schema {SHARD_SCHEMA}", str(path), mend)
    return content


def damaged(path: Path, what: str) -> OmniError:
    return OmniError(
        f"damaged shard: {what}",
        str(path),
        "omni-extract --verify names the faults, --repair redoes the shards",
    )


class HashingReader:
    """A file that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._sha256.update(data)
        return data

    def digest(self) -> str:
        return self._sha256.hexdigest()
