"""Writing shards so that a kill at any moment leaves whole ones or none.

The tar goes to a temporary file, hashed on its way, is synced and renamed; then the sidecar, renamed
likewise, commits it: a tar without a sidecar does not exist. The index comes last, when every shard
of the plan is there. Must not know how features are made.
"""

import contextlib
import glob
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from omni.errors import OmniError
from omni.formats.files import safe_name, temporary_path, write_whole
from omni.formats.manifest import Problem
from omni.formats.records import (
    INDEX_NAME,
    SHARD_SCHEMA,
    Environment,
    Failure,
    FeatureConfig,
    Index,
    Role,
    SampleMeta,
    Sidecar,
    StoredDtype,
    fingerprint,
    read_sidecar,
    shard_name,
)
from omni.formats.shards import FAILURES_NAME, escape_key, sample_crc
from omni.formats.tar_stream import TarStream


@dataclass(frozen=True)
class SplitSpec:
    """What every shard of a split has in common."""

    folder: Path
    split: str
    role: Role
    config: FeatureConfig  # what the fingerprint is taken over
    shard_size: int

    def __post_init__(self) -> None:
        safe_name(self.split, "a split")

    @property
    def dtype(self) -> StoredDtype:
        """How features are stored."""
        return self.config["dtype"]


class UnfitError(OmniError):
    """An utterance that can't be stored, for what it is itself; the shard goes on without it."""

    def __init__(self, problem: Problem, what: str, where: str) -> None:
        self.problem = problem
        super().__init__(what, where)


@dataclass(frozen=True)
class EncodedSample:
    """An utterance's members of the tar by the end of their names, and the crc over them."""

    meta: SampleMeta
    members: dict[str, bytes]
    crc: int


class ShardWriter:
    """One shard; a context manager that leaves no trace unless `commit` was reached."""

    def __init__(self, spec: SplitSpec, shard: int) -> None:
        self._spec, self._shard = spec, shard
        self.name = shard_name(spec.split, shard)
        self.path = spec.folder / f"{self.name}.tar"
        self._metas: list[SampleMeta] = []
        self._crcs: list[int] = []
        self._failures: list[Failure] = []
        spec.folder.mkdir(parents=True, exist_ok=True)
        clear_shard(spec, shard)
        # Unique: a lost worker that is still alive can't write into its successor's file.
        self._temporary = temporary_path(spec.folder, self.name)
        self._file = self._temporary.open("wb")
        self._tar = TarStream(self._file)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what was not committed is removed."""
        with contextlib.suppress(OSError):  # what an abandoned file has buffered needs no room
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, meta: SampleMeta, features: np.ndarray) -> None:
        """Append an utterance.

        Args:
            meta: what lies beside the features.
            features: floating ([L,] T, d), finite.

        Raises:
            UnfitError: features that are not finite, a text that is none; nothing was written.
            OmniError: features whose T is not the meta's `n_frames`.
        """
        self.append(encode_sample(meta, features, self._spec.dtype))

    def append(self, sample: EncodedSample) -> None:
        """Append an utterance that `encode_sample` made ready, perhaps in another thread."""
        key = escape_key(sample.meta["id"])
        for name in sorted(sample.members):
            self._tar.add(f"{key}.{name}", sample.members[name])
        self._metas.append(sample.meta)
        self._crcs.append(sample.crc)

    def fail(self, utterance_id: str, reason: str, kind: Problem) -> None:
        """Record an utterance that can't be extracted."""
        self._failures.append({"id": utterance_id, "kind": kind.value, "reason": reason})

    def commit(self, plan: str, environment: Environment, seconds: dict[str, float]) -> Sidecar:
        """Sync, rename, write the sidecar; returns the sidecar.

        Args:
            plan: hash of all that the shard is made from, what failed included.
            environment: what the bytes may depend on besides.
            seconds: wall time of the stages.
        """
        self._tar.end()
        self._file.flush()
        os.fsync(self._file.fileno())
        sidecar: Sidecar = {
            "schema": SHARD_SCHEMA,
            "split": self._spec.split,
            "role": self._spec.role,
            "shard": self._shard,
            "n": len(self._metas),
            "first": self._metas[0]["id"] if self._metas else "",
            "last": self._metas[-1]["id"] if self._metas else "",
            "bytes": self._tar.n,
            "sha256": self._tar.sha256.hexdigest(),
            "fingerprint": fingerprint(self._spec.config),
            "config": self._spec.config,
            "shard_size": self._spec.shard_size,
            "plan": plan,
            "n_samples": sum(meta["n_samples"] for meta in self._metas),
            "n_frames": [meta["n_frames"] for meta in self._metas],
            "n_text": [len(meta["text_norm"]) for meta in self._metas],
            "crc32": self._crcs,
            "failures": sorted(self._failures, key=lambda failure: failure["id"]),
            "environment": environment,
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
        }
        # An old sidecar must not vouch for the new tar, not even for the moment between renames.
        self.path.with_suffix(".json").unlink(missing_ok=True)
        self._temporary.replace(self.path)
        write_json(self.path.with_suffix(".json"), sidecar)
        return sidecar


def encode_sample(meta: SampleMeta, features: np.ndarray, dtype: StoredDtype) -> EncodedSample:
    """An utterance as the tar holds it; any thread may do this.

    Args:
        meta: what lies beside the features.
        features: floating ([L,] T, d), finite.

    Raises:
        UnfitError: features that are not finite, a text that is none.
        OmniError: features whose T is not the meta's `n_frames`.
    """
    if features.shape[-2] != meta["n_frames"]:
        raise OmniError(f"{features.shape[-2]} frames for {meta['n_frames']}", meta["id"])
    members = encode_features(features, dtype, meta["id"])
    try:
        members["json"] = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        what = "its text can't be written as UTF-8"
        raise UnfitError(Problem.NOT_STORED, what, ascii(meta["id"])) from error
    return EncodedSample(meta, members, sample_crc(members))


def encode_features(features: np.ndarray, dtype: StoredDtype, where: str = "") -> dict[str, bytes]:
    """Members `npy`, and `scale.npy` for int8: a scale for each channel (and layer).

    Whisper has a few massive channels (16 against a median of 3.5), which forbid one scale for all.

    Raises:
        UnfitError: features that are not finite, or overflow float16.
    """
    if dtype == "int8":
        values = features.astype(np.float32)
        scale = np.abs(values).max(axis=-2, keepdims=values.ndim == 3) / 127  # (d,) or (L, 1, d)
        scale = np.where(scale == 0, 1, scale).astype(np.float32)
        with np.errstate(invalid="ignore"):  # found just below
            stored = np.rint(values / scale)
    else:
        with np.errstate(over="ignore"):  # found just below
            stored = features.astype(np.float16, copy=False)
    if not _all_finite(stored):
        what = f"features are not finite, or too large for {dtype}"
        raise UnfitError(Problem.NOT_FINITE, what, where)
    if dtype == "int8":
        return {"npy": _npy(stored.astype(np.int8)), "scale.npy": _npy(scale)}
    return {"npy": _npy(stored)}


def committed(spec: SplitSpec, shard: int) -> Sidecar | None:
    """The sidecar of a shard that is there, whole and of this configuration; else None.

    Raises:
        OmniError: it was made with another configuration; the difference is spelled out.
    """
    path = spec.folder / f"{shard_name(spec.split, shard)}.tar"
    if not path.with_suffix(".json").is_file() or not path.is_file():
        return None
    try:
        sidecar = read_sidecar(path)
    except OmniError:
        return None  # an unreadable sidecar commits nothing: the shard is written anew
    if sidecar["fingerprint"] != fingerprint(spec.config):
        raise OmniError(
            f"the shards there were made otherwise: {_difference(sidecar['config'], spec.config)}",
            str(spec.folder),
            "choose another --out, or --overwrite to replace them",
        )
    if sidecar["shard_size"] != spec.shard_size:
        raise OmniError(
            f"the shards there hold {sidecar['shard_size']} utterances, not {spec.shard_size}",
            str(spec.folder),
            f"give --shard-size {sidecar['shard_size']}, or --overwrite to replace them",
        )
    return sidecar if sidecar["bytes"] == path.stat().st_size else None


def committed_anywhere(spec: SplitSpec) -> Iterator[tuple[int, Sidecar]]:
    """(shard, sidecar) of every shard of the split that any rank has committed."""
    for path in sorted(spec.folder.glob(f"{glob.escape(spec.split)}-[0-9]*.json")):
        number = path.stem.removeprefix(f"{spec.split}-")
        sidecar = committed(spec, int(number)) if number.isdecimal() else None
        if sidecar is not None:
            yield int(number), sidecar


def write_index(spec: SplitSpec, n_shards: int) -> Index | None:
    """Write `index.json` and `failures.jsonl` if every shard is committed, else do nothing.

    Both are the same whoever writes them, so ranks that end together do no harm.

    Returns:
        The index, or None if shards are missing.
    """
    sidecars = []
    for shard in range(n_shards):
        path = spec.folder / f"{shard_name(spec.split, shard)}.tar"
        if not path.with_suffix(".json").is_file():
            return None
        sidecars.append(read_sidecar(path))
    index: Index = {
        "schema": SHARD_SCHEMA,
        "split": spec.split,
        "role": spec.role,
        "fingerprint": fingerprint(spec.config),
        "fingerprint_config": spec.config,
        "shard_size": spec.shard_size,
        "n": sum(sidecar["n"] for sidecar in sidecars),
        "n_samples": sum(sidecar["n_samples"] for sidecar in sidecars),
        "n_failures": sum(len(sidecar["failures"]) for sidecar in sidecars),
        "shards": [
            {
                "name": shard_name(spec.split, sidecar["shard"]),
                "n": sidecar["n"],
                "bytes": sidecar["bytes"],
                "sha256": sidecar["sha256"],
                "n_frames": sidecar["n_frames"],
                "n_text": sidecar["n_text"],
            }
            for sidecar in sidecars
        ],
    }
    lines = [json.dumps(failure, sort_keys=True) for s in sidecars for failure in s["failures"]]
    write_whole(spec.folder / FAILURES_NAME, "".join(line + "\n" for line in lines).encode())
    write_json(spec.folder / INDEX_NAME, index)
    return index


def refuse_beyond(spec: SplitSpec, n_shards: int) -> None:
    """A folder may hold no more shards than the plan has: an index of fewer would lose them without
    a word.

    Raises:
        OmniError: it does.
    """
    beyond = spec.folder / f"{shard_name(spec.split, n_shards)}.json"
    if beyond.is_file():
        raise OmniError(
            f"more shards there than the {n_shards} of this run",
            str(spec.folder),
            "a smaller --limit or another corpus: choose another --out, or --overwrite",
        )


def open_for_writing(spec: SplitSpec, stale: Iterable[int] = ()) -> None:
    """Take the index away while shards change, and the commit marks of those to be replaced: no rank
    that ends before them may index what they were."""
    (spec.folder / INDEX_NAME).unlink(missing_ok=True)
    for shard in stale:
        (spec.folder / f"{shard_name(spec.split, shard)}.json").unlink(missing_ok=True)


def clear_shard(spec: SplitSpec, shard: int) -> None:
    """Remove what was half written of a shard, by whichever process: it has none but one writer."""
    name = glob.escape(shard_name(spec.split, shard))
    for stale in spec.folder.glob(f".{name}.*.tmp"):
        stale.unlink(missing_ok=True)


def clear_split(folder: Path) -> None:
    """Remove every file that extraction writes into a split's folder, commit marks first."""
    for pattern in (INDEX_NAME, "*-[0-9]*.json", "*-[0-9]*.tar", ".*.tmp", FAILURES_NAME):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON, whole or not at all, on the disk when this returns."""
    write_whole(path, (json.dumps(content, sort_keys=True) + "\n").encode())


def _difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return ", ".join(f"{key} {old.get(key)} there, {new.get(key)} now" for key in keys)


def _all_finite(values: np.ndarray) -> bool:
    if values.dtype == np.float16:  # numpy would go through them one by one: ten times the time
        exponent = np.uint16(0x7C00)  # all ones: an infinity or no number
        return not ((values.view(np.uint16) & exponent) == exponent).any()
    return bool(np.isfinite(values).all())


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
