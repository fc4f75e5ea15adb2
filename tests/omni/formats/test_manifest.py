"""The plan and the manifest: who goes where, in any spelling.

.venv/bin/python -m pytest tests/omni/formats/test_manifest.py
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_kit import noise_tree

from extract.corpora.librispeech import (
    PUBLISHED,
    canonical_split,
    compare_with_published,
    librispeech_manifest,
)
from extract.plan import make_plan, shards_of_rank
from omni.errors import OmniError
from omni.formats.manifest import normalize_text, read_manifest, write_manifest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return noise_tree(tmp_path_factory.mktemp("corpus"), 11)


@given(
    st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_the_plan_holds_each_utterance_once(ids: list[str], size: int, seed: int) -> None:
    plan = make_plan(ids, size, seed)
    assert sorted(i for shard in plan for i in shard) == list(range(len(ids)))
    assert all(len(shard) == size for shard in plan[:-1])
    assert plan == make_plan(ids, size, seed)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 60))
def test_a_limited_plan_is_the_beginning_of_the_whole(n: int, size: int, limit: int) -> None:
    ids = [f"u{i}" for i in range(n)]
    whole, part = make_plan(ids, size), make_plan(ids, size, limit=limit)
    assert [i for s in part for i in s] == [i for s in whole for i in s][:limit]


@given(st.integers(0, 40), st.integers(1, 8))
def test_ranks_share_the_shards(n: int, world: int) -> None:
    owned = [shard for rank in range(world) for shard in shards_of_rank(n, rank, world)]
    assert sorted(owned) == list(range(n))


def test_the_plan_shuffles_and_refuses_nonsense() -> None:
    ids = [f"u{i:03d}" for i in range(100)]
    flat = [i for shard in make_plan(ids, 10) for i in shard]
    assert flat != sorted(flat)
    assert flat != [i for shard in make_plan(ids, 10, seed=1) for i in shard]
    with pytest.raises(OmniError, match="at least 1"):
        make_plan(ids, 0)
    with pytest.raises(OmniError, match="world size"):
        shards_of_rank(3, 2, 2)


@pytest.mark.parametrize(
    "name",
    ["train-clean-100", "train.clean.100", "train_clean_100", "Train-Clean-100", "clean/train.100"],
)
def test_every_spelling_of_a_split(name: str) -> None:
    assert canonical_split(name) == "train-clean-100"
    assert canonical_split("demo-train") == "demo-train"


def test_manifest_of_a_tree_and_back_from_parquet(corpus: Path, tmp_path: Path) -> None:
    manifest = librispeech_manifest(corpus, "dev.clean")
    assert manifest == librispeech_manifest(corpus / "LibriSpeech", "dev-clean")
    assert (manifest.split, manifest.role, len(manifest.utterances)) == ("dev-clean", "eval", 11)
    row = manifest.utterances[0]
    assert (row.id, row.speaker, row.chapter, row.sex) == ("11-5-0000", "11", "5", "F")
    assert (row.n_samples, row.sample_rate, row.problem) == (8000, 16_000, "")
    assert (row.text, row.text_norm) == ("WORD 0 OF SPEAKER 11", "word 0 of speaker 11")
    write_manifest(manifest, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == manifest
    assert normalize_text(" A  B\tC ") == "a b c"
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(OmniError, match="can't be read"):
        read_manifest(tmp_path / "x.parquet")


def test_a_missing_split_names_what_is_there(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(OmniError, match=r"no split test-clean.*found .*dev-clean"):
        librispeech_manifest(corpus, "test-clean")
    with pytest.raises(OmniError, match="no such folder"):
        librispeech_manifest(tmp_path / "nowhere", "dev-clean")


def test_published_counts_are_compared() -> None:
    assert len(PUBLISHED) == 9
    assert compare_with_published("dev-clean", 11, 5.0).startswith("warning: dev-clean: 11")
    assert compare_with_published("dev-clean", 2703, 5.4 * 3600).startswith("dev-clean: 2703")
    assert compare_with_published("dev-clean-2", 1089, 7.0).startswith("dev-clean-2: 1089")
    assert compare_with_published("mine", 1, 1.0) == ""
