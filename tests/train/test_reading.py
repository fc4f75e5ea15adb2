"""What readers take from the disk: each sample once a pass, each shard whole once a run."""

import contextlib
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from training_kit import speech, write_split

import train.stream
from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.shards import HashingReader, Sample
from train.data import gather
from train.passes import BatchRule, Shard
from train.stream import START, Packed, Position, Stream, StreamSpec

N, SHARD_SIZE = 96, 8
AROUND = 4 * 8192  # bytes of a local file's buffer, and headers


class Disk:
    """What was read since it was asked last: bytes by file, and files whose sha256 was taken."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.hashed: Counter[str] = Counter()

    def taken(self) -> tuple[Counter[str], Counter[str]]:
        read, hashed = self.read, self.hashed
        self.read, self.hashed = Counter(), Counter()
        return read, hashed


class _Raw(io.FileIO):
    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__(path)
        self.path, self.disk = str(path), disk

    def readinto(self, buffer: object) -> int:
        n = super().readinto(buffer)  # type: ignore[arg-type]
        self.disk.read[self.path] += n or 0
        return n or 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Counts what goes through the shards' reader, which reads nothing before it is used here."""
    disk = Disk()
    monkeypatch.setattr(train.stream, "ahead", lambda source, depth: source)

    @contextlib.contextmanager
    def opened(path: Path, mend: str = "", ahead: int | None = None) -> Iterator[object]:
        with io.BufferedReader(_Raw(path, disk)) as file:
            yield file

    class Hashing(HashingReader):
        def __init__(self, file: io.BufferedReader) -> None:
            super().__init__(file)
            self.path = file.raw.path  # type: ignore[attr-defined]

        def digest(self) -> str:
            disk.hashed[self.path] += 1
            return super().digest()

    monkeypatch.setattr(shard_files, "opened", opened)
    monkeypatch.setattr(shard_files, "HashingReader", Hashing)
    return disk


def long_speech(n: int) -> list[Sample]:
    """Utterances of some 16 kB, so that headers and buffers weigh little."""
    samples = []
    for sample in speech(n):
        frames = sample.features.repeat(32, 0)
        meta = {**sample.meta, "n_frames": len(frames), "n_samples": len(frames) * 320}
        samples.append(Sample(sample.key, meta, frames))
    return samples


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    write_split(tmp_path, "train-x", long_speech(N), SHARD_SIZE)
    write_split(tmp_path, "dev-x", speech(4, 3, 900, "bob"), role="eval")
    return gather([str(tmp_path)]).shards


def one_pass(
    shards: list[Shard],
    monkeypatch: pytest.MonkeyPatch,
    start: Position = START,
    world: int = 2,
    workers: int = 2,
    passes: int = 1,
) -> list[list[Packed]]:
    """The batches of every worker of every rank, to the end of the last pass, one after another."""
    taken = []
    for rank, worker in itertools.product(range(world), range(workers)):
        info = SimpleNamespace(id=worker, num_workers=workers)
        monkeypatch.setattr(train.stream, "get_worker_info", lambda info=info: info)
        spec = StreamSpec(shards, 5, BatchRule(4, 0, N), rank, world)
        mine = []
        stream = iter(Stream(spec, start))
        for item in stream:
            assert not isinstance(item, OmniError)
            if item.at.number == passes:
                break
            mine.append(item)
        stream.close()  # type: ignore[attr-defined]
        taken.append(mine)
    return taken


def test_each_sample_is_read_once_a_pass_and_each_shard_hashed_once_a_run(
    shards: list[Shard], monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    """Two ranks of two workers, to the first batch after one, two and three passes. A pool is a whole
    pass here."""
    size = sum(Path(s.path).stat().st_size for s in shards)
    reads = []
    for passes in (1, 2, 3):
        disk.taken()
        one_pass(shards, monkeypatch, passes=passes)
        read, hashed = disk.taken()
        assert hashed == Counter({s.path: 1 for s in shards})
        reads.append(sum(read.values()))
    # Each run above is a new one. What a further pass adds is the bytes of the data, once.
    for fewer, more in itertools.pairwise(reads):
        assert 0.9 * size < more - fewer < size + AROUND * N


def test_the_samples_are_those_of_a_lone_reader(
    shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone,) = one_pass(shards, monkeypatch, world=1, workers=1, passes=2)
    whole = {(item.at, key): item for item in alone for key in item.keys}
    seen = Counter[tuple[Position, str]]()
    for item in itertools.chain(*one_pass(shards, monkeypatch, passes=2)):
        for row, (key, n) in enumerate(zip(item.keys, item.lengths.tolist(), strict=True)):
            other = whole[item.at, key]
            there = other.features[other.keys.index(key)]
            assert item.features[row, :n].equal(there[:n])
            assert not there[n:].any()
            seen[item.at, key] += 1
    assert seen == Counter(whole.keys())


def test_a_start_in_mid_pass_hashes_what_it_uses_once(shards: list[Shard], disk: Disk) -> None:
    """Pools of some shards: those before the start come up in the next pass."""
    spec = StreamSpec(shards, 5, BatchRule(4, 0, 3 * SHARD_SIZE))
    last = len(shards) * SHARD_SIZE // 4 - 1
    stream = iter(Stream(spec, Position(0, last)))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    _, hashed = disk.taken()
    assert 0 < len(hashed) < len(shards)
    for item in Stream(spec, Position(0, last)):
        if item.at.number == 2:
            break
    assert disk.taken()[1] == Counter({s.path: 1 for s in shards})


def test_a_folder_given_twice_is_hashed_once(
    shards: list[Shard], monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    one_pass([*shards, *shards], monkeypatch)
    assert disk.taken()[1] == Counter({s.path: 1 for s in shards})


def test_a_flipped_bit_of_a_feature_stops_the_reader_it_was_dealt_to(
    shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite number of another value: nothing but the sha256 can tell. Every reader in turn is the
    one that must find it, before it packs a sample of that shard."""
    finders = set()
    for hurt in shards[:8]:
        path = Path(hurt.path)
        good = path.read_bytes()
        own = {meta["id"] for _, meta in shard_files.read_metas(path)}
        bad = bytearray(good)
        bad[hurt.ends[2] - 4096] ^= 1
        path.write_bytes(bad)
        told = {}
        for rank, worker in itertools.product(range(2), range(2)):
            info = SimpleNamespace(id=worker, num_workers=2)
            monkeypatch.setattr(train.stream, "get_worker_info", lambda info=info: info)
            packed: set[str] = set()
            for item in Stream(StreamSpec(shards, 5, BatchRule(4, 0, 16), rank, 2)):
                if isinstance(item, OmniError):
                    told[rank, worker] = item.what, packed & own
                elif item.at.number > 0:
                    break
                else:
                    packed |= {*item.keys}
        (finder,) = told
        assert told[finder] == ("damaged shard: its bytes have another sha256 than its sidecar says", set())  # fmt: skip
        finders.add(finder)
        path.write_bytes(good)
    assert len(finders) > 2


@pytest.mark.parametrize("what", ["moved", "gone", "longer"])
def test_a_tar_that_changes_under_a_run_is_told(shards: list[Shard], what: str) -> None:
    """From the second pass on nobody reads the whole: places that no longer fit are found."""
    (shard,) = shards[:1]
    path = Path(shard.path)
    stream = iter(Stream(StreamSpec([shard], 0, BatchRule(SHARD_SIZE))))
    next(stream)
    data = path.read_bytes()
    if what == "moved":  # the first utterance now stands last
        rest = data[shard.ends[0] : shard.ends[-1]]
        path.write_bytes(rest + data[: shard.ends[0]] + data[shard.ends[-1] :])
    elif what == "gone":
        path.unlink()
    else:
        path.write_bytes(data + bytes(512))
    found = [item for item in itertools.islice(stream, 4) if isinstance(item, OmniError)]
    assert len(found) == 1
    assert path.name in str(found[0])


def test_places_and_a_walk_read_the_same(shards: list[Shard]) -> None:
    for shard in shards[:2]:
        walked = list(shard_files.read_shard(shard.path))
        for places in ([0], [SHARD_SIZE - 1], [1, 4, 5], range(SHARD_SIZE)):
            found = list(shard_files.read_places(shard.path, shard.ends, places))
            assert [place for place, _ in found] == list(places)
            for place, sample in found:
                assert (sample.key, sample.meta) == (walked[place].key, walked[place].meta)
                assert (sample.features == walked[place].features).all()


def test_places_of_another_tar_are_refused(shards: list[Shard]) -> None:
    shard = shards[0]
    for ends in (shard.ends[:-1], [end - 512 for end in shard.ends], [end + 512 for end in shard.ends]):  # fmt: skip
        with pytest.raises(OmniError, match=Path(shard.path).name):
            list(shard_files.read_places(shard.path, ends, [1, 3]))
