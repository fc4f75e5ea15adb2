"""Utterances from shards and manifests: one role, one split once, a licence each.

.venv/bin/python -m pytest tests/tasks/test_sources.py
"""

from pathlib import Path

import pytest
from training_kit import speech, write_split

from omni.errors import OmniError
from omni.formats.manifest import Utterance, make_manifest, write_manifest
from tasks.sources import gather


def listed(tmp_path: Path, split: str, n: int = 3) -> Path:
    rows = [
        Utterance(f"{split}-{i}", "7", sex="F", audio=f"{i}.flac", text_norm=f"word {i}")
        for i in range(n)
    ]
    path = tmp_path / f"{split}.parquet"
    write_manifest(make_manifest(split, tmp_path, rows), path)
    return path


def test_splits_of_the_role_are_taken_and_the_others_named(tmp_path: Path) -> None:
    write_split(tmp_path / "shards", "train-x", speech(4))
    write_split(tmp_path / "shards", "dev-x", speech(3, 1, 100), role="eval")
    said: list[str] = []
    found = gather([str(tmp_path / "shards")], [listed(tmp_path, "train-clean-5")], say=said.append)
    assert {h.split for h in found.heard} == {"train-x", "train-clean-5"}
    assert {h.split: h.licence for h in found.heard}["train-clean-5"] == "CC-BY-4.0"
    assert [i["name"] for i in found.inputs] == ["train-clean-5", "train-x"]
    assert said == ["dev-x is passed over: its role is eval"]
    judges = gather([str(tmp_path / "shards")], role="eval")
    assert {h.split for h in judges.heard} == {"dev-x"}


def test_a_split_that_judges_is_refused_for_training(tmp_path: Path) -> None:
    write_split(tmp_path, "dev-x", speech(3), role="eval")
    with pytest.raises(OmniError, match="for train"):
        gather([str(tmp_path / "dev-x")])
    with pytest.raises(OmniError, match="for eval"):
        gather([], [listed(tmp_path, "train-y")], role="eval")


def test_a_split_is_given_once(tmp_path: Path) -> None:
    write_split(tmp_path, "train-x", speech(3))
    with pytest.raises(OmniError, match="given twice"):
        gather([str(tmp_path / "train-x")], [listed(tmp_path, "train-x")])


def test_the_input_s_hash_covers_texts_and_labels(tmp_path: Path) -> None:
    def digest(**change: str) -> str:
        rows = [Utterance("a-1", **{"speaker": "7", "text_norm": "word", "audio": "x"} | change)]
        write_manifest(make_manifest("train-y", tmp_path, rows), tmp_path / "m.parquet")
        return gather([], [tmp_path / "m.parquet"]).inputs[0]["sha256"]

    assert digest() == digest()
    assert len({digest(), digest(text_norm="words"), digest(speaker="8"), digest(sex="F")}) == 4
