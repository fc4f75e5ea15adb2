"""The JSON of a shard folder as types: sidecar, index, meta of a sample, feature config.

`shards/README.md` describes every field. What is required here is what readers rely on; more may be
there. A record may be a stranger's, or half of one: behind these functions nobody has to look again.
Must not know tars or features.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import ConfigDict, FailFast, Field, with_config
from typing_extensions import TypedDict

from omni.errors import OmniError
from omni.formats.checked import JSON_BYTES, Schema, parse_json
from omni.formats.stores import read_bytes

T = TypeVar("T")
SHARD_SCHEMA = 1
INDEX_NAME = "index.json"

Role = Literal["train", "eval", "smoke"]
StoredDtype = Literal["float16", "int8"]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Frames = Annotated[int, Field(ge=1, le=1 << 24)]  # of an utterance: four days
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A name that stays in its folder and on its line.
Name = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}$")]
Id = Annotated[str, Field(min_length=1, max_length=20_000)]


@with_config(ConfigDict(extra="allow"))  # the fingerprint covers every key, known or not
class FeatureConfig(TypedDict):
    """All that decides a stored value."""

    encoder: str
    layers: Literal["last"] | Annotated[list[Count], Field(min_length=1, max_length=1000)]
    dtype: StoredDtype
    window: NotRequired[str | dict[str, int | float]]  # "30", or a fitted one's margin and step
    mel: NotRequired[int]
    trim: NotRequired[int]
    frames_per_second: NotRequired[Annotated[int | float, Field(gt=0, le=1e6)]]


class SampleMeta(TypedDict):
    """What is known of one utterance; lies beside its features."""

    id: Id
    split: NotRequired[str]
    speaker: str
    chapter: NotRequired[str]
    sex: NotRequired[str]
    text: str
    text_norm: str
    n_samples: Count  # at 16 kHz
    n_frames: Frames
    n_chunks: NotRequired[Count]
    sha256: str  # of the samples


class Failure(TypedDict):
    """An utterance that could not be extracted."""

    id: str
    kind: NotRequired[str]  # a `manifest.Problem`
    reason: str


@with_config(ConfigDict(extra="allow"))
class Environment(TypedDict, total=False):
    """What a shard's bytes may depend on besides its config; shards of before a key lack it.

    stamp: `Sidecar.plan` with size and time of change of each file in place of its hash.
    """

    encoder: str
    source: str
    device_type: str
    device: str
    compute: str
    batch_size: int
    threads: int
    python: str
    torch: str
    transformers: str
    numpy: str
    stamp: str


class Sidecar(TypedDict):
    """What was written into a tar; lists are in the tar's order."""

    schema: int
    split: Name
    role: Role
    shard: Count
    n: Count
    first: str
    last: str
    bytes: Count
    sha256: Hash
    fingerprint: Hash
    config: FeatureConfig
    shard_size: Count
    plan: str
    n_samples: Count
    n_frames: Annotated[list[Frames], FailFast()]
    n_text: Annotated[list[Count], FailFast()]
    crc32: Annotated[list[Count], FailFast()]
    failures: Annotated[list[Failure], FailFast()]
    environment: NotRequired[Environment]
    seconds: NotRequired[dict[str, float]]


class IndexEntry(TypedDict):
    """A shard, as the index knows it: the same as its sidecar says."""

    name: Name
    n: Count
    bytes: Count
    sha256: Hash
    n_frames: Annotated[list[Frames], FailFast()]
    n_text: Annotated[list[Count], FailFast()]


class Index(TypedDict):
    """A finished split."""

    schema: int
    split: Name
    role: Role
    fingerprint: Hash
    fingerprint_config: FeatureConfig
    shard_size: Count
    n: Count
    n_samples: Count
    n_failures: Count
    shards: Annotated[list[IndexEntry], FailFast()]


def parse_meta(data: bytes, where: str) -> SampleMeta:
    """The meta of a sample.

    Raises:
        OmniError: it is not one; names the field.
    """
    return parse_json(data, SampleMeta, where)


def read_sidecar(tar: Path) -> Sidecar:
    """The sidecar of a tar.

    Raises:
        OmniError: it is missing, unreadable, of another schema, lacks a field or contradicts itself.
    """
    path, mend = tar.with_suffix(".json"), "run omni-extract --repair, or extract again"
    sidecar = _read(path, Sidecar, mend)
    _check_lengths(sidecar, sidecar["n"], path, mend)
    if len(sidecar["crc32"]) != sidecar["n"]:
        raise OmniError(f"`crc32` is not of {sidecar['n']} samples", str(path), mend)
    if sidecar["fingerprint"] != fingerprint(sidecar["config"]):
        raise OmniError("`fingerprint` is not that of `config`", str(path), mend)
    return sidecar


def read_index(folder: Path) -> Index:
    """The index of a finished split.

    Raises:
        OmniError: as `read_sidecar`.
    """
    path, mend = folder / INDEX_NAME, "run the same omni-extract command again to finish it"
    index = _read(path, Index, mend)
    if index["fingerprint"] != fingerprint(index["fingerprint_config"]):
        raise OmniError("`fingerprint` is not that of `fingerprint_config`", str(path), mend)
    for entry in index["shards"]:
        _check_lengths(entry, entry["n"], path, mend)
    names = [entry["name"] for entry in index["shards"]]
    if len(set(names)) < len(names):
        raise OmniError("a shard is named twice", str(path), mend)
    return index


def disagreements(entry: IndexEntry, index: Index, sidecar: Sidecar) -> list[str]:
    """Fields in which the index and a shard's sidecar differ. Not the role: the index decides it."""
    pairs = {
        "n": (entry["n"], sidecar["n"]),
        "bytes": (entry["bytes"], sidecar["bytes"]),
        "sha256": (entry["sha256"], sidecar["sha256"]),
        "n_frames": (entry["n_frames"], sidecar["n_frames"]),
        "n_text": (entry["n_text"], sidecar["n_text"]),
        "fingerprint": (index["fingerprint"], sidecar["fingerprint"]),
        "split": (index["split"], sidecar["split"]),
    }
    return [key for key, (one, two) in pairs.items() if one != two]


def fingerprint(config: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of what decides a feature's value."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def shard_name(split: str, shard: int) -> str:
    """Name of a shard without suffix."""
    return f"{split}-{shard:06d}"


def _read(path: Path, kind: type[T], mend: str) -> T:
    """A record of SHARD_SCHEMA; another schema is told before a field that it may lack."""
    data = read_bytes(path, JSON_BYTES, mend)
    schema = parse_json(data, Schema, str(path), mend)["schema"]
    if schema != SHARD_SCHEMA:
        what = f"of shard schema {schema}, this version reads {SHARD_SCHEMA}"
        raise OmniError(what, str(path), mend)
    return parse_json(data, kind, str(path), mend)


def _check_lengths(record: Sidecar | IndexEntry, n: int, path: Path, mend: str) -> None:
    if len(record["n_frames"]) != n or len(record["n_text"]) != n:
        raise OmniError(f"`n_frames` or `n_text` is not of {n} samples", str(path), mend)
