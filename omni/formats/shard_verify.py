"""Looking at every byte of a split: which shard, which key, what is wrong.

Whatever lies there is a fault to be named, never an error. Must not know how shards are made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni.errors import OmniError, printable
from omni.formats.records import (
    INDEX_NAME,
    Sidecar,
    disagreements,
    read_index,
    read_sidecar,
    shard_name,
)
from omni.formats.shards import Decoder, HashingReader, Sample, ShardError, groups, sample_crc
from omni.formats.stores import ask, is_file, is_folder, opened


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written; `key` is empty where no single one is concerned."""

    shard: str
    key: str
    what: str

    def __str__(self) -> str:
        """One line; what would not be seen, or would move a terminal's cursor, is escaped."""
        return printable(f"{self.shard}{' ' + self.key if self.key else ''}: {self.what}")


@dataclass
class _Walk:
    """What has been seen of a tar so far."""

    n: int = 0
    faults: int = 0
    n_samples: int = 0
    first: str = ""
    last: str = ""


def split_folders(root: Path) -> list[Path]:
    """`root` if it holds a split's shards, else the folders in it that do.

    Raises:
        OmniError: no shards anywhere, or it can't be looked into.
    """
    here = [root] if is_folder(root) else []
    inside = ask(root, lambda p: sorted(x for x in p.iterdir() if x.is_dir())) if here else []
    found = [path for path in [*here, *inside] if _shard_names(path) or _has_index(path)]
    if not found:
        raise OmniError("no shards there", str(root))
    return found


def verify_split(folder: Path) -> list[Fault]:
    """Every fault of a split, shard by shard; empty if all is well."""
    try:
        names = _shard_names(folder)
        faults = [fault for name in names for fault in verify_shard(folder / f"{name}.tar")]
        if _has_index(folder):
            return faults + list(_index_faults(folder, names))
    except OmniError as error:
        return [Fault(folder.name, "", error.what)]
    return [*faults, Fault(INDEX_NAME, "", "missing: the extraction is not finished")]


def verify_shard(tar: Path) -> Iterator[Fault]:
    """Size, structure, every key's bytes and decoding, all that the sidecar says, the whole's sha256."""
    name, walk = tar.stem, _Walk()
    try:
        if not is_file(tar):
            yield Fault(name, "", "the tar is missing")
            return
        size = ask(tar, lambda p: p.stat().st_size)
    except OmniError as error:
        yield Fault(name, "", error.what)
        return
    try:
        sidecar = read_sidecar(tar)
    except OmniError as error:
        yield Fault(name, "", f"the sidecar is missing or broken ({error.what})")
        return
    if size != sidecar["bytes"]:
        yield Fault(name, "", f"{size} bytes, written were {sidecar['bytes']}")
    if name != shard_name(sidecar["split"], sidecar["shard"]):
        whose = shard_name(sidecar["split"], sidecar["shard"])
        yield Fault(name, "", f"its sidecar is that of {whose}")
    digest = ""
    try:
        with opened(tar) as file:
            stream = HashingReader(file)
            yield from _sample_faults(stream, sidecar, walk)
            digest = stream.digest()
    except ShardError as fault:
        walk.faults += 1
        yield Fault(name, fault.key, f"after {walk.n} keys: {fault.what}")
    except OmniError as error:
        yield Fault(name, "", f"after {walk.n} keys: {error.what}")
        return
    if walk.n != sidecar["n"]:
        yield Fault(name, "", f"{walk.n} keys, written were {sidecar['n']}")
    elif not walk.faults:
        yield from _whole_faults(name, sidecar, walk, digest)


def _sample_faults(stream: HashingReader, sidecar: Sidecar, walk: _Walk) -> Iterator[Fault]:
    name = shard_name(sidecar["split"], sidecar["shard"])
    decode = Decoder(sidecar)
    for key, parts in groups(sidecar, stream):
        place = walk.n
        walk.n += 1
        try:
            _count(walk, decode(key, parts))
        except ShardError as fault:
            walk.faults += 1
            yield Fault(name, key, fault.what)
            continue
        if sample_crc(parts) != sidecar["crc32"][place]:
            walk.faults += 1
            yield Fault(name, key, "its bytes are not those that were written")


def _count(walk: _Walk, sample: Sample) -> None:
    walk.first, walk.last = walk.first or sample.meta["id"], sample.meta["id"]
    walk.n_samples += sample.meta["n_samples"]


def _whole_faults(name: str, sidecar: Sidecar, walk: _Walk, digest: str) -> Iterator[Fault]:
    """What can only be told when every sample was as it should be."""
    if digest != sidecar["sha256"]:
        yield Fault(name, "", "another sha256, though every key is as written: a header or padding")
    if (walk.first, walk.last) != (sidecar["first"], sidecar["last"]):
        yield Fault(name, "", f"from {walk.first!r} to {walk.last!r}, the sidecar says otherwise")
    if walk.n_samples != sidecar["n_samples"]:
        told = sidecar["n_samples"]
        yield Fault(name, "", f"{walk.n_samples} samples of sound, the sidecar says {told}")


def _index_faults(folder: Path, names: list[str]) -> Iterator[Fault]:
    """Where the index is broken, or says other things than the sidecars."""
    try:
        index = read_index(folder)
    except OmniError as error:
        yield Fault(INDEX_NAME, "", error.what)
        return
    sidecars = []
    for entry in index["shards"]:
        if entry["name"] not in names:
            yield Fault(entry["name"], "", "in the index, and not there")
            continue
        try:
            sidecars.append(read_sidecar(folder / f"{entry['name']}.tar"))
        except OmniError:
            continue  # told as a fault of the shard
        if differing := disagreements(entry, index, sidecars[-1]):
            what = f"the index says otherwise than its sidecar in {', '.join(differing)}"
            yield Fault(entry["name"], "", what)
    listed = {entry["name"] for entry in index["shards"]}
    yield from (Fault(name, "", "not in the index") for name in names if name not in listed)
    if len(sidecars) == len(index["shards"]):
        sums = {
            "n": (index["n"], sum(s["n"] for s in sidecars)),
            "n_samples": (index["n_samples"], sum(s["n_samples"] for s in sidecars)),
            "n_failures": (index["n_failures"], sum(len(s["failures"]) for s in sidecars)),
        }
        for key, (told, found) in sums.items():
            if told != found:
                yield Fault(INDEX_NAME, "", f"`{key}` is {told}, its shards hold {found}")


def _shard_names(folder: Path) -> list[str]:
    """Names of the shards that have a tar or a sidecar."""

    def look(path: Path) -> list[str]:
        patterns = ("*-[0-9]*.tar", "*-[0-9]*.json")
        return sorted({x.stem for pattern in patterns for x in path.glob(pattern)})

    return ask(folder, look)


def _has_index(folder: Path) -> bool:
    return ask(folder / INDEX_NAME, lambda p: p.exists())
