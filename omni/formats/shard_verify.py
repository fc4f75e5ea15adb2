"""Looking at every byte of a split: which shard, which key, what is wrong.

Must not know how shards are made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni.errors import OmniError
from omni.formats.shards import (
    INDEX_NAME,
    HashingReader,
    decode_sample,
    groups,
    read_sidecar,
    sample_crc,
)
from omni.formats.splits import open_split


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written; `key` is empty where no single one is concerned."""

    shard: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"{self.shard}{' ' + self.key if self.key else ''}: {self.what}"


def split_folders(root: Path) -> list[Path]:
    """`root` if it holds a split's shards, else the folders in it that do.

    Raises:
        OmniError: no shards anywhere.
    """
    candidates = [root, *sorted(root.iterdir())] if root.is_dir() else []
    found = [path for path in candidates if path.is_dir() and _shard_names(path)]
    if not found:
        raise OmniError("no shards there", str(root))
    return found


def verify_split(folder: Path) -> list[Fault]:
    """Every fault of a split, shard by shard; empty if all is well."""
    names = _shard_names(folder)
    faults = [fault for name in names for fault in verify_shard(folder / f"{name}.tar")]
    if (folder / INDEX_NAME).is_file():
        try:
            listed = [entry.name for entry in open_split(folder).shards]
            faults += [Fault(n, "", "not in the index") for n in names if n not in listed]
        except OmniError as error:
            if not faults:  # else the same thing is said already, and better
                faults.append(Fault(INDEX_NAME, "", error.what))
    else:
        faults.append(Fault(INDEX_NAME, "", "missing: the extraction is not finished"))
    return faults


def verify_shard(tar: Path) -> Iterator[Fault]:
    """Size, structure, every key's bytes and decoding, count, and the sha256 of the whole."""
    name = tar.stem
    if not tar.is_file():
        yield Fault(name, "", "the tar is missing")
        return
    try:
        sidecar = read_sidecar(tar)
    except OmniError as error:
        yield Fault(name, "", f"the sidecar is missing or broken ({error.what})")
        return
    if tar.stat().st_size != sidecar["bytes"]:
        yield Fault(name, "", f"{tar.stat().st_size} bytes, written were {sidecar['bytes']}")
    n, local = 0, 0
    with tar.open("rb") as file:
        stream = HashingReader(file)
        try:
            for key, members in groups(tar, stream):
                fault = _sample_fault(tar, key, members, sidecar["crc32"], n)
                n += 1
                if fault:
                    local += 1
                    yield fault
        except OmniError as error:
            local += 1
            yield Fault(name, "", f"after {n} keys {error.what.removeprefix('damaged shard: ')}")
    if n != sidecar["n"]:
        yield Fault(name, "", f"{n} keys, written were {sidecar['n']}")
    elif not local and stream.digest() != sidecar["sha256"]:
        yield Fault(name, "", "another sha256, though every key is as written: a header or padding")


def _sample_fault(
    tar: Path, key: str, members: dict[str, bytes], crcs: list[int], position: int
) -> Fault | None:
    try:
        decode_sample(tar, key, members)
    except OmniError as error:
        return Fault(
            tar.stem, key, error.what.removeprefix("damaged shard: ").removeprefix(f"{key} ")
        )
    if position >= len(crcs) or sample_crc(members) != crcs[position]:
        return Fault(tar.stem, key, "its bytes are not those that were written")
    return None


def _shard_names(folder: Path) -> list[str]:
    """Names of the shards that have a tar or a sidecar."""
    return sorted(
        {path.stem for suffix in ("tar", "json") for path in folder.glob(f"*-[0-9]*.{suffix}")}
    )
