"""A split's role by its name: no evaluation set is ever trained on by its name.

.venv/bin/python -m pytest tests/omni/formats/test_roles.py
"""

from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from extract.corpora.choose import Source, find_manifests
from omni.errors import OmniError
from omni.formats.manifest import role_of, write_manifest

EVALUATE = [
    "test",
    "dev",
    "valid",
    "validation",
    "val",
    "eval",
    "heldout",
    "held-out",
    "held_out",
    "cv-test",
    "test_clean",
    "dev_clean",
    "Test",
    "DEV",
    "TestClean",
    "cvTest",
    "dev93",
    "eval2000",
    "test1",
    "tst-COMMON",
    "clean/test",
    "validation.clean",
    "en_dev_v2",
    "dev-other",
    "test-clean",
    "demo-heldout",
    "audiobench-mini",
    "demo-heldout-voice",
    "noise-heldout",
    "my.eval",
    "holdout",
    "hold-out",
]
TRAIN = [
    "train",
    "train-clean-100",
    "train_960",
    "Train",
    "cv-train",
    "trainset",
    "demo-train",
    "noise-train",
    "training",
    "talks",
    "mine",
    "de-2024",
    "other",
]
UNTOLD = [
    "validated",
    "mytest",
    "train_dev",
    "test-train",
    "TrainDev",
    "devclean",
    "testset",
    "evalset",
    "invalid",
    "contest",
    "train-validated",
    "cvtest",
    "held-out-train",
]


@pytest.mark.parametrize("split", EVALUATE)
def test_a_word_of_evaluation_evaluates(split: str) -> None:
    assert role_of(split) == "eval"


@pytest.mark.parametrize("split", TRAIN)
def test_other_names_train(split: str) -> None:
    assert role_of(split) == "train"


@pytest.mark.parametrize("split", UNTOLD)
def test_what_a_name_does_not_tell_is_not_guessed(split: str) -> None:
    with pytest.raises(OmniError, match="--role train or --role eval"):
        role_of(split)


def test_the_smoke_clips_do_neither() -> None:
    assert [role_of(s) for s in ("smoke", "smoke-2")] == ["smoke"] * 2


@given(
    st.text("abctrn_-. 1X", max_size=6),
    st.sampled_from(["test", "dev", "val", "valid", "eval", "Test", "VALIDATION", "heldout"]),
    st.text("abctrn_-. 1X", max_size=6),
)
def test_nothing_that_names_an_evaluation_set_trains(before: str, word: str, after: str) -> None:
    try:
        role = role_of(before + word + after)
    except OmniError:
        return
    assert role == "eval"


def test_the_option_decides_for_a_folder_and_for_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus" / "a.wav", [0.1] * 1600, 16_000)
    folder = Source("validated", audio_dir=tmp_path / "corpus", transcripts="none")
    with pytest.raises(OmniError, match="--role"):
        find_manifests(folder)
    (manifest,) = find_manifests(Source(**{**vars(folder), "role": "train"}))
    assert manifest.role == "train"
    write_manifest(manifest, tmp_path / "m.parquet")
    assert find_manifests(Source("", manifest=tmp_path / "m.parquet")) == [manifest]
    (other,) = find_manifests(Source("", manifest=tmp_path / "m.parquet", role="eval"))
    assert other.role == "eval"
    with pytest.raises(OmniError, match="can't be changed"):
        find_manifests(Source("demo-heldout", role="train"))
