"""The control never leaves a right pair, and a second copy is not augmented as the first."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_kit import speech, write_split

from omni.errors import OmniError
from omni.formats.splits import SplitIndex
from train.augment import Augmentation
from train.pairs import WrongPairs
from train.passes import BatchRule, Shard, plan_pass
from train.stream import Packed, StreamSpec, _jobs, batches


def of_split(split: SplitIndex, weight: float = 1.0) -> list[Shard]:
    return [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n)), weight) for e in split.shards]


def take(spec: StreamSpec, n: int, workers: int = 0) -> list[Packed]:
    stream = batches(spec, workers=workers)
    items = list(itertools.islice(stream, n))
    stream.close()
    return items


@given(
    said=st.lists(st.sampled_from("aabc"), min_size=2, max_size=30),
    size=st.integers(1, 7),
    buffer=st.integers(1, 12),
    world=st.integers(1, 4),
    weight=st.sampled_from([1.0, 2.0]),
)
def test_no_right_pair_is_left(
    said: list[str], size: int, buffer: int, world: int, weight: float
) -> None:
    """In batches of one, with a sample a rank, where most say the same, in pools of one text."""
    cuts = [said[i : i + 4] for i in range(0, len(said), 4)]
    shards = [
        Shard(f"s{s}", tuple(range(5, 5 + len(cut))), tuple(range(len(cut))), weight)
        for s, cut in enumerate(cuts)
    ]
    rule = BatchRule(size, 0, buffer)
    if len(set(said)) == 1:
        with pytest.raises(OmniError, match="every training utterance says the same"):
            WrongPairs(shards, cuts)
        return
    pass_ = [batch for pool in plan_pass(shards, 0, 0, rule) for batch in pool.batches]
    got: list[list[str]] = [[""] * len(batch) for batch in pass_]
    for rank in range(world):
        spec = StreamSpec(shards, 0, rule, rank, world, shuffle_texts=cuts)
        shares = (share for job in _jobs(spec, (0, 0), 0, 1) for share in job.shares)
        for share in itertools.takewhile(lambda share: share.at.number == 0, shares):
            got[share.at.batch][rank::world] = share.texts
    for batch, texts in zip(pass_, got, strict=True):
        for (s, p), text in zip(batch, texts, strict=True):
            assert text
            assert text != cuts[s][p]


def test_the_wrong_texts_are_those_of_the_pool_where_it_can_be(tmp_path: Path) -> None:
    samples = {s.key: s.meta["text_norm"] for s in speech(32)}
    split = write_split(tmp_path, "train-x", speech(32))
    texts = [[s.meta["text_norm"] for s in speech(32)[i : i + 16]] for i in (0, 16)]
    shards = of_split(split)
    right = take(StreamSpec(shards, 0, BatchRule(16)), 2)
    wrong = take(StreamSpec(shards, 0, BatchRule(16), shuffle_texts=texts), 2)
    assert [a.keys for a in right] == [b.keys for b in wrong]
    assert sorted(t for b in wrong for t in b.texts) == sorted(samples.values())
    assert all(samples[k] != t for b in wrong for k, t in zip(b.keys, b.texts, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_copy_is_augmented_anew(tmp_path: Path, workers: int) -> None:
    split = write_split(tmp_path, "train-x", speech(8))
    noisy = Augmentation(noise=0.5)

    def by_copy(shards: list[Shard], n: int) -> dict[str, list[np.ndarray]]:
        found: dict[str, list[np.ndarray]] = {}
        for item in take(StreamSpec(shards, 0, BatchRule(4), augment=noisy), n, workers):
            for i, key in enumerate(item.keys):
                found.setdefault(key, []).append(item.features[i, : item.lengths[i]].numpy())
        return found

    once = by_copy(of_split(split), 2)
    for shards in (of_split(split, 2.0), of_split(split) * 2):  # a weight; a folder given twice
        twice = by_copy(shards, 4)
        assert twice.keys() == once.keys()
        for key, (first, second) in twice.items():
            assert np.array_equal(first, once[key][0])
            assert not np.array_equal(first, second)
