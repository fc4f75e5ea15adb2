"""The shards on disk, as readers see them; `shards/README.md` describes every file and field.

A damaged tar reads as a short one without a word, and anybody may have made it, so nothing is
believed here that the sidecar does not confirm: size, sha256, count, ids, the shape of every array.
No pickle is ever read. Must not know how features are made; writing is `omni.formats.shard_writer`.
"""

import contextlib
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from omni.errors import OmniError
from omni.formats import npy
from omni.formats.files import locate
from omni.formats.records import FeatureConfig, SampleMeta, Sidecar, parse_meta, read_sidecar
from omni.formats.stores import ask, is_file, opened
from omni.formats.tars import Member, Stream, Stretch, TarError, members

FAILURES_NAME = "failures.jsonl"
_MEMBERS = {"npy", "json", "scale.npy"}
_MAX_META = 1 << 24  # bytes of a sample's JSON: a day of speech is two megabytes of text
_MAX_FEATURES = 1 << 33  # bytes of a sample's features
_MAX_WIDTH = 1 << 16  # of a frame
_SAFE = re.compile(r"[^A-Za-z0-9_-]")
_AROUND = 1 << 16  # bytes that a store is asked for beyond a sample that is read alone
_JUMP = 1 << 12  # bytes at a time where features are jumped over: a meta and the headers around it
_SHOWN = 100  # characters of a foreign name in a message


@dataclass(frozen=True)
class Sample:
    """One utterance: `features` float16 (T, d), or (L, T, d) where several layers were stored."""

    key: str
    meta: SampleMeta
    features: np.ndarray


class Placed(NamedTuple):
    """What a walk past the features tells of one utterance.

    end: byte of the tar where its members end; they begin where those before it end, the first's
    at 0.
    """

    key: str
    meta: SampleMeta
    end: int


class ShardError(ValueError):
    """What is wrong with a shard; `key` is empty where no single sample is concerned."""

    def __init__(self, what: str, key: str = "") -> None:
        super().__init__(what)
        self.what, self.key = what, key


def read(paths: Iterable[str | Path], check_hash: bool = True) -> Iterator[Sample]:
    """Samples of shards, one shard after another; see `read_shard`.

    Raises:
        OmniError: also where the shards hold frames of different widths.
    """
    width = 0
    for path in paths:
        for sample in read_shard(path, check_hash):
            width = same_width(locate(path), sample, width)
            yield sample


def read_shard(path: str | Path, check_hash: bool = True) -> Iterator[Sample]:
    """Samples of one tar in order.

    Args:
        path: the tar, local or a URL; its sidecar lies beside it.
        check_hash: compare the bytes' sha256 at the end, which finds a flipped bit.

    Raises:
        OmniError: no sidecar, wrong size, a damaged or foreign member, features that are not finite
            or not of the sidecar's shape, a wrong count, first or last id, or a wrong sha256; it
            names the shard, and the key where there is one.
    """
    path = locate(path)
    sidecar = _checked_sidecar(path)
    n, first, last = 0, "", ""
    with opened(path) as file, _told(path):
        stream = HashingReader(file) if check_hash else None
        decode = Decoder(sidecar)
        for key, parts in groups(sidecar, stream or file):
            sample = decode(key, parts)
            first, last = first or sample.meta["id"], sample.meta["id"]
            n += 1
            yield sample
        if stream is not None and stream.digest() != sidecar["sha256"]:
            raise damaged(path, "its bytes have another sha256 than its sidecar says")
    if (n, first, last) != (sidecar["n"], sidecar["first"], sidecar["last"]):
        raise damaged(
            path,
            f"{n} samples from {first!r} to {last!r}, its sidecar says {sidecar['n']} "
            f"from {sidecar['first']!r} to {sidecar['last']!r}",
        )


def read_metas(path: str | Path) -> Iterator[tuple[str, SampleMeta]]:
    """(key, meta) of each sample of one tar in order, without its features: seeks over them.

    Raises:
        OmniError: as `read_shard`, but for what only reading every byte can find.
    """
    return ((placed.key, placed.meta) for placed in read_placed(path))


def read_placed(path: str | Path) -> Iterator[Placed]:
    """As `read_metas`, with where each sample ends.

    Raises:
        OmniError: as `read_metas`.
    """
    path = locate(path)
    sidecar = _checked_sidecar(path)
    n, found = 0, dict[str, Placed]()  # of the key at hand, once its JSON was seen
    with opened(path, ahead=_JUMP) as file, _told(path):
        for place, key, suffix, member in _members(sidecar, file, file.seek):
            if found and key not in found:
                yield found.popitem()[1]
            if suffix == "json":
                n += 1
                found[key] = Placed(key, _meta(key, _taken(member, key), place, sidecar), 0)
            if key in found:
                found[key] = found[key]._replace(end=member.end)
        yield from found.values()
    if n != sidecar["n"]:
        raise damaged(path, f"{n} samples, its sidecar says {sidecar['n']}")


def read_places(
    path: str | Path, ends: Sequence[int], places: Iterable[int]
) -> Iterator[tuple[int, Sample]]:
    """(place, sample) of these places of one tar, in its order, without the bytes of the others.

    A store is asked for one range a sample, unless half of them or more are wanted: then for the
    whole. Of the tar only these samples are looked at: `read_shard` tells whether all of it is well.

    Args:
        ends: as `read_placed` gives them, of all samples.

    Raises:
        OmniError: no sidecar, wrong size, or a sample that is not where it was, is damaged, not
            finite or not what the sidecar says; names the shard, and the key where there is one.
    """
    path = locate(path)
    sidecar, wanted = _checked_sidecar(path), sorted(places)
    if len(ends) != sidecar["n"]:
        raise damaged(path, f"{len(ends)} samples were found, its sidecar says {sidecar['n']}")
    ahead = _AROUND if 2 * len(wanted) < len(ends) else None
    with opened(path, ahead=ahead) as file, _told(path):
        decode = Decoder(sidecar)
        for place in wanted:
            begin = ends[place - 1] if place else 0
            file.seek(begin)
            stretch = Stretch(file, ends[place] - begin)
            key, parts = "", dict[str, bytearray]()
            for _, name, suffix, member in _members(sidecar, stretch, first=place):
                if parts and name != key:
                    raise ShardError("is not alone in its place: the tar has changed", key)
                key, parts[suffix] = name, _taken(member, name)
            if stretch.left:
                raise ShardError("ends before its place does: the tar has changed", key)
            yield place, decode(key, parts, place)


def same_width(path: Path, sample: Sample, width: int) -> int:
    """The sample's width, which must be `width` unless that is 0: a batch may hold both.

    Raises:
        OmniError: it is another; names the shard and the key.
    """
    got = sample.features.shape[-1]
    if width not in (0, got):
        raise damaged(path, f"{sample.key} has frames of width {got}, shards before it {width}")
    return int(got)


def escape_key(utterance_id: str) -> str:
    """An id as a member key: what is outside [A-Za-z0-9_-] as %XX of its UTF-8 bytes."""
    return _SAFE.sub(lambda m: "".join(f"%{b:02X}" for b in m.group().encode()), utterance_id)


class Decoder:
    """Members of a key to a sample, for the samples of one tar: in order, or with their places.

    Raises, when called:
        ShardError: a member missing, not what its JSON or the sidecar says, or not finite.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._place = -1
        self._width = 0  # of a frame, as the first sample has it

    def __call__(self, key: str, parts: dict[str, bytearray], place: int | None = None) -> Sample:
        self._place = self._place + 1 if place is None else place
        if missing := {"npy", "json"} - parts.keys():
            raise ShardError(f"can't be decoded: it has no .{min(missing)}", key)
        meta = _meta(key, parts["json"], self._place, self._sidecar)
        try:
            features = _features(parts, self._sidecar["config"])
        except ValueError as error:
            raise ShardError(f"can't be decoded: {error}", key) from error
        self._width = self._width or features.shape[-1]
        want = (meta["n_frames"], self._width)
        if features.shape[-2:] != want:
            raise ShardError(f"has features of shape {features.shape}, not {want}", key)
        if not npy.is_finite(features):
            raise ShardError("has features that are not finite", key)
        return Sample(key, meta, features)


def sample_crc(parts: Mapping[str, bytes | bytearray]) -> int:
    """crc32 over the members' bytes in the order of their names: finds which key has a fault."""
    crc = 0
    for name in sorted(parts):
        crc = zlib.crc32(parts[name], crc)
    return crc


def groups(sidecar: Sidecar, stream: Stream) -> Iterator[tuple[str, dict[str, bytearray]]]:
    """Members of each key as webdataset groups them, one key at a time; ends at the file's end.

    Raises:
        ShardError: the tar's structure is broken, or it holds what no shard holds.
    """
    current, parts = "", dict[str, bytearray]()
    for _, key, suffix, member in _members(sidecar, stream):
        if key != current and parts:
            yield current, parts
            parts = {}
        current = key
        parts[suffix] = _taken(member, key)
    if parts:
        yield current, parts
    rest, left = memoryview(bytearray(1 << 16)), sidecar["bytes"]
    while left > 0 and (n := stream.readinto(rest)):  # padding belongs to the hash
        left -= n


def _members(
    sidecar: Sidecar, stream: Stream, seek: Callable[[int], object] | None = None, first: int = 0
) -> Iterator[tuple[int, str, str, Member]]:
    """(place of the sample, key, suffix, member) of what a shard may hold, of the size it may have;
    `first` is the place of the first sample in the stream."""
    place, current, seen, suffixes = first - 1, "", set[str](), set[str]()
    try:
        for member in members(stream, sidecar["bytes"], seek):
            key, _, suffix = member.name.partition(".")
            if suffix not in _MEMBERS:
                what = f"has a member .{suffix[:_SHOWN]}, which no shard holds: not decoded"
                raise ShardError(what, key[:_SHOWN])
            if key != current or place < first:
                place, current, suffixes = place + 1, key, set()
                if key in seen:
                    raise ShardError("is there twice", key)
                seen.add(key)
                if place >= sidecar["n"]:
                    raise ShardError(f"is beyond the {sidecar['n']} samples of the sidecar", key)
            if suffix in suffixes:
                raise ShardError(f"has two members .{suffix}", key)
            suffixes.add(suffix)
            most = _most(sidecar, place, suffix)
            if member.size > most:
                raise ShardError(f"has .{suffix} of {member.size} bytes, at most {most} fit", key)
            yield place, key, suffix, member
    except TarError as error:
        raise ShardError(f"the tar can't be read ({error})") from error


def _most(sidecar: Sidecar, place: int, suffix: str) -> int:
    """Bytes that a member may have, known before it is read."""
    if suffix == "json":
        return _MAX_META
    config = sidecar["config"]
    layers = 1 if config["layers"] == "last" else len(config["layers"])
    rows = layers * (sidecar["n_frames"][place] if suffix == "npy" else 1)
    size = {"float16": 2, "int8": 1}[config["dtype"]] if suffix == "npy" else 4
    return npy.HEADER_BYTES + min(rows * _MAX_WIDTH * size, _MAX_FEATURES)


def _taken(member: Member, key: str) -> bytearray:
    try:
        return member.read()
    except MemoryError as error:
        raise ShardError(f"has {member.size} bytes, more than there is memory for", key) from error
    except TarError as error:
        raise ShardError(f"is cut off ({error})", key) from error


def _meta(key: str, data: bytearray, place: int, sidecar: Sidecar) -> SampleMeta:
    """The meta of a key, as the sidecar confirms it."""
    try:
        meta = parse_meta(bytes(data), key)
    except OmniError as error:
        raise ShardError(f"can't be decoded: its JSON has {error.what}", key) from error
    if escape_key(meta["id"]) != key:
        raise ShardError(f"can't be decoded: it holds {meta['id'][:_SHOWN]!r}", key)
    told = (sidecar["n_frames"][place], sidecar["n_text"][place])
    got = (meta["n_frames"], len(meta["text_norm"]))
    if got != told:
        what = "has {} frames and {} characters".format(*got)
        raise ShardError(what + ", the sidecar says {} and {}".format(*told), key)
    return meta


def _features(parts: dict[str, bytearray], config: FeatureConfig) -> np.ndarray:
    """float16 ([L,] T, d), with the dimensions that the config promises.

    Raises:
        ValueError: they are of another kind.
    """
    stored = npy.load(parts["npy"])
    if stored.dtype != config["dtype"]:
        raise ValueError(f"it holds {stored.dtype}, not {config['dtype']}")
    layers = () if config["layers"] == "last" else (len(config["layers"]),)
    if stored.ndim != 2 + len(layers) or stored.shape[:-2] != layers:
        raise ValueError(f"features of shape {stored.shape} for layers {config['layers']}")
    if stored.shape[-1] > _MAX_WIDTH:
        raise ValueError(f"frames of width {stored.shape[-1]}")
    if stored.dtype == np.float16:
        if "scale.npy" in parts:
            raise ValueError("a scale for float16")
        return stored
    if "scale.npy" not in parts:
        raise ValueError("it has no .scale.npy")
    scale = npy.load(parts["scale.npy"])
    width = stored.shape[-1]
    if scale.dtype != np.float32 or scale.shape != ((*layers, 1, width) if layers else (width,)):
        raise ValueError(f"a scale of {scale.dtype} {scale.shape} for {stored.shape}")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found after
        return (stored * scale).astype(np.float16)


def _checked_sidecar(tar: Path) -> Sidecar:
    """The sidecar of a tar whose size is the one it says."""
    sidecar = read_sidecar(tar)
    size = ask(tar, lambda p: p.stat().st_size) if is_file(tar) else -1
    if size != sidecar["bytes"]:
        raise damaged(tar, f"{size} bytes, its sidecar says {sidecar['bytes']}")
    return sidecar


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except ShardError as fault:
        raise damaged(path, f"{fault.key} {fault.what}".strip()) from fault


def damaged(path: Path, what: str) -> OmniError:
    """The error of a shard that is not what its sidecar says."""
    return OmniError(
        f"damaged shard: {what}",
        str(path),
        "omni-extract --verify names the faults, --repair redoes the shards",
    )


class HashingReader:
    """A file that hashes what passes through it."""

    def __init__(self, file: Stream) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; returns the bytes read, fewer only at the end."""
        n = self._file.readinto(buffer)
        self._sha256.update(buffer[:n])
        return n

    def digest(self) -> str:
        """sha256 of what was read."""
        return self._sha256.hexdigest()
