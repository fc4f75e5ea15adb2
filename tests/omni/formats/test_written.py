"""What is written is by type what is read: no key that readers don't name, none that they miss.

.venv/bin/python -m pytest tests/omni/formats/test_written.py
"""

import json
from pathlib import Path

import numpy as np
import pytest

from omni.errors import OmniError
from omni.formats.checked import check_value
from omni.formats.manifest import Problem
from omni.formats.records import (
    Environment,
    SampleMeta,
    parse_meta,
    read_index,
    read_sidecar,
)
from omni.formats.run_files import TrainConfig
from omni.formats.shard_writer import ShardWriter, SplitSpec, write_index
from omni.formats.shards import read_shard
from train.options import TrainOptions

META: SampleMeta = {
    "id": "a", "split": "train-x", "speaker": "1", "chapter": "2", "sex": "F", "text": "É",
    "text_norm": "é", "n_samples": 1280, "n_frames": 4, "n_chunks": 1, "sha256": "0" * 64,
}  # fmt: skip


def write(root: Path) -> SplitSpec:
    """A split of one shard: one utterance, one failure."""
    config = {
        "encoder": "abc",
        "layers": [0, 3],
        "dtype": "int8",
        "window": {"fit": 2.0, "step": 1.0},
    }
    spec = SplitSpec(root / "train-x", "train-x", "train", config, 3)
    everywhere = dict.fromkeys(Environment.__annotations__, "x")
    with ShardWriter(spec, 0) as writer:
        writer.add(META, np.ones((2, 4, 8), np.float32))
        writer.fail("b", "audio is empty", Problem.UNREADABLE)
        written = writer.commit(
            "plan", everywhere | {"batch_size": 4, "threads": 1}, {"decode": 1.0}
        )
    assert written == read_sidecar(writer.path)
    assert write_index(spec, 1) == read_index(spec.folder)
    return spec


def test_a_shard_is_read_back_key_by_key(tmp_path: Path) -> None:
    spec = write(tmp_path)
    tar = spec.folder / "train-x-000000.tar"
    assert json.loads(tar.with_suffix(".json").read_text()) == read_sidecar(tar)
    assert [sample.meta for sample in read_shard(tar)] == [META]
    assert parse_meta(json.dumps(META).encode(), "") == META


@pytest.mark.parametrize(("name", "value"), [("batch_size", "4"), ("device", 3), ("stamp", None)])
def test_an_environment_of_other_types_is_no_sidecar(
    tmp_path: Path, name: str, value: object
) -> None:
    sidecar = write(tmp_path).folder / "train-x-000000.json"
    content = json.loads(sidecar.read_text())
    content["environment"][name] = value
    sidecar.write_text(json.dumps(content))
    with pytest.raises(OmniError, match=rf"environment\.{name}"):
        read_sidecar(sidecar.with_suffix(".tar"))


def test_training_options_are_what_readers_of_a_run_expect() -> None:
    written = TrainOptions(shards=("a", "b"), weights=(1.0, 2.0)).to_json()
    assert check_value(written, TrainConfig, "") == written
    assert json.loads(json.dumps(written)) == written
