"""Shards in a store that fsspec knows read as local ones do; `memory://` stands for S3."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from store_kit import CountingFileSystem, counted
from training_kit import save_lm, speech, tiny_lm, write_split
from upath import UPath

from cli import eval as cli_eval
from cli import train_projector
from omni.errors import OmniError
from omni.formats.files import locate
from omni.formats.shards import Sample, read_metas, read_placed, read_places, read_shard
from omni.formats.splits import find_splits
from train.passes import BatchRule, Shard
from train.stream import StreamSpec, batches

STORE = "memory://bucket"


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[Path]:
    """The same two splits on the disk and in the store."""
    write_split(tmp_path / "s", "train-x", speech(40))
    write_split(tmp_path / "s", "dev-x", speech(6, 5, 500, "bob"), role="eval")
    for path in (tmp_path / "s").rglob("*"):
        if path.is_file():
            there = UPath(f"{STORE}/{path.relative_to(tmp_path / 's')}")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    yield tmp_path / "s"
    UPath(STORE).fs.rm("/bucket", recursive=True)


def test_samples_and_batches_are_those_of_the_disk(shards: Path) -> None:
    taken = {}
    for root in (str(shards), STORE):
        splits = {split.split: split for split in find_splits(root)}
        assert sorted(splits) == ["dev-x", "train-x"]
        entries = splits["train-x"].shards
        assert [k for k, _ in read_metas(entries[0].path)] == [
            s.key for s in read_shard(str(entries[0].path))
        ]
        planned = [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n))) for e in entries]
        stream = batches(StreamSpec(planned, 3, BatchRule(8)))
        taken[root] = [next(stream) for _ in range(7)]  # more than a pass
        stream.close()
    for mine, theirs in zip(*taken.values(), strict=True):
        assert mine.keys == theirs.keys
        np.testing.assert_array_equal(mine.features, theirs.features)


def write_long(tmp_path: Path) -> None:
    """One shard of 40 utterances of 200 to 600 kB."""
    long = []
    for sample in speech(40):
        frames = np.tile(sample.features, (800, 1))
        meta = {**sample.meta, "n_frames": len(frames), "n_samples": len(frames) * 320}
        long.append(Sample(sample.key, meta, frames))
    write_split(tmp_path, "train-x", long, shard_size=40)


@pytest.mark.filterwarnings("ignore:UPath")
@pytest.mark.parametrize("step", [1, 4])
def test_a_reader_fetches_its_samples_and_little_more(tmp_path: Path, step: int) -> None:
    """All of a shard, or one in four: by ranges, as S3 gives them."""
    write_long(tmp_path)
    (tar,) = (tmp_path / "train-x").glob("*.tar")
    places = range(0, 40, step)
    with counted(tmp_path) as url:
        there = f"{url}/train-x/{tar.name}"
        ends = [placed.end for placed in read_placed(there)]
        CountingFileSystem.fetched = 0
        found = dict(read_places(there, ends, places))
        fetched = CountingFileSystem.fetched
    walked = list(read_shard(tar))
    assert all((found[i].features == walked[i].features).all() for i in places)
    own = sum(ends[i] - (ends[i - 1] if i else 0) for i in places)
    assert list(found) == list(places)
    assert own <= fetched < 1.35 * own


@pytest.mark.filterwarnings("ignore:UPath")
def test_metas_are_fetched_without_the_features(tmp_path: Path) -> None:
    write_long(tmp_path)
    (tar,) = (tmp_path / "train-x").glob("*.tar")
    with counted(tmp_path) as url:
        assert len(list(read_metas(f"{url}/train-x/{tar.name}"))) == 40
        assert 40 * 1024 < CountingFileSystem.fetched < tar.stat().st_size / 10
        CountingFileSystem.fetched = 0
        assert len(list(read_shard(f"{url}/train-x/{tar.name}"))) == 40
        assert CountingFileSystem.fetched < 1.1 * tar.stat().st_size


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{}/*", ["dev-x", "train-x"]),
        ("{}/tr*", ["train-x"]),
        ("{}/{{dev,train}}-x", ["dev-x", "train-x"]),
        ("{}/none-*", []),
    ],
)
def test_globs_and_braces(shards: Path, pattern: str, found: list[str]) -> None:
    for root in (str(shards), STORE):
        assert [s.split for s in find_splits(pattern.format(root))] == found


def test_train_and_eval_from_a_store(shards: Path, tmp_path: Path) -> None:
    save_lm(tmp_path / "lm", tiny_lm())
    ces = {}
    for name, root in (("disk", str(shards)), ("store", STORE)):
        args = f"--shards {root} --lm {tmp_path}/lm --runs {tmp_path} --run {name} --steps 2"
        args += " --hidden 32 --batch-size 8 --decode-limit 1 --wandb disabled"
        assert train_projector.main(args.split()) == 0
        out = tmp_path / f"{name}.json"
        assert cli_eval.main([f"{tmp_path}/{name}", "--decode-limit", "1", "--json", str(out)]) == 0
        ces[name] = json.loads(out.read_text())["dev-x"]["ce"]
    assert ces["disk"] == ces["store"]


def test_a_short_tar_in_the_store_is_named(shards: Path) -> None:
    tar = UPath(f"{STORE}/train-x/train-x-000001.tar")
    tar.write_bytes(tar.read_bytes()[:-700])
    with pytest.raises(OmniError, match=r"damaged shard.*memory://bucket/train-x/train-x-000001"):
        list(read_shard(str(tar)))
    with pytest.raises(OmniError, match="damaged shard"):
        list(read_metas(str(tar)))


def test_stores_that_can_t_be_reached_are_told(shards: Path) -> None:
    with pytest.raises(OmniError, match="no such store"):
        locate("nowhere://bucket/shards")
    with pytest.raises(OmniError, match="no such shard folder"):
        find_splits(f"{STORE}/none")
    assert locate("a/b") == Path("a/b")


def test_metas_of_a_tar_with_a_sample_less_are_refused(shards: Path) -> None:
    tar, other = (shards / "train-x" / f"train-x-00000{i}.tar" for i in (1, 2))
    sidecar, short = (json.loads(t.with_suffix(".json").read_text()) for t in (tar, other))
    shutil.copy(other, tar)
    for key in ("n_frames", "n_text"):
        sidecar[key][: short["n"]] = short[key]
    sidecar["bytes"] = tar.stat().st_size
    tar.with_suffix(".json").write_text(json.dumps(sidecar))
    with pytest.raises(OmniError, match="8 samples, its sidecar says 16"):
        list(read_metas(tar))
