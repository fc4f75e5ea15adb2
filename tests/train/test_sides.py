"""Who trains and who evaluates: no utterance on both sides, no split lost, no row too long."""

from pathlib import Path

import pytest
from training_kit import chat_tokenizer, speech, write_split

from omni.bridge.room import Room
from omni.errors import OmniError
from omni.formats.shards import Sample
from omni.formats.splits import find_splits, name_apart
from train.content import changes, content_of
from train.data import TrainingData, read_sides
from train.passes import Shard
from train.sides import choose_sides


def look(*roots: Path, **changes: object) -> TrainingData:
    return read_sides(choose_sides([str(root) for root in roots]), **changes)  # type: ignore[arg-type]


def rename(samples: list[Sample], ids: list[str]) -> list[Sample]:
    return [Sample(i, {**s.meta, "id": i}, s.features) for s, i in zip(samples, ids, strict=True)]


def with_audio(samples: list[Sample], tag: str = "") -> list[Sample]:
    """With a hash of their audio; equal for equal places and tag."""
    for i, sample in enumerate(samples):
        sample.meta["sha256"] = f"{i:04d}{tag}"
    return samples


@pytest.mark.parametrize("judge", ["dev-x", "test-x", "demo-heldout-x"])
def test_equal_ids_in_two_splits_are_refused(tmp_path: Path, judge: str) -> None:
    write_split(tmp_path, "train-x", speech(20))
    write_split(tmp_path, judge, speech(12, 5), role="eval")
    with pytest.raises(
        OmniError, match=rf"12 utterances would.*ann-0000 of train-x and of {judge}"
    ):
        look(tmp_path)


def test_equal_audio_under_other_ids_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "train-x", with_audio(speech(20)))
    renamed = rename(with_audio(speech(3)), ["x-0", "x-1", "x-2"])
    write_split(tmp_path, "dev-x", renamed, role="eval")
    with pytest.raises(OmniError, match=r"3 utterances.*ann-0002 of train-x is the audio of x-2"):
        look(tmp_path)
    # In shards of their own, found below other roots, with other text: still the same sound.
    for sample in renamed:
        sample.meta["text_norm"] = "other"
    write_split(tmp_path / "else", "dev-y", renamed[:1], role="eval")
    with pytest.raises(OmniError, match="1 utterance would both"):
        look(tmp_path / "train-x", tmp_path / "else")


def test_what_takes_part_on_one_side_alone_is_no_collision(tmp_path: Path) -> None:
    samples = with_audio(speech(20))
    samples[3].meta["text_norm"] = ""  # no transcript: it never trains
    write_split(tmp_path, "train-x", samples)
    write_split(tmp_path, "dev-x", with_audio(speech(4, 5, 500, "bob"), "b"), role="eval")
    write_split(tmp_path, "dev-y", rename([speech(4)[3]], ["ann-0003"]), role="eval")
    assert set(look(tmp_path).eval_sets) == {"dev-x", "dev-y"}


def test_two_evaluation_splits_of_one_name_are_both_kept(tmp_path: Path) -> None:
    write_split(tmp_path / "a", "train-x", speech(8))
    for name in ("a", "b", "c"):
        write_split(tmp_path / name, "dev", speech(4, 1, 0, name), role="eval")
    found = look(tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "b")
    assert set(found.eval_sets) == {"a/dev", "b/dev", "c/dev"}
    assert found.select == "a/dev"
    deep = [tmp_path / "de" / "x", tmp_path / "en" / "x"]
    for i, root in enumerate(deep):
        write_split(root, "dev", speech(4, 1, 0, f"s{i}"), role="eval")
    named = name_apart([split for root in deep for split in find_splits(root)])
    assert set(named) == {"de/x/dev", "en/x/dev"}


@pytest.mark.parametrize(
    "name", ["dev-clean", "test-other", "demo-heldout", "test", "validation", "cv-test", "Dev_2"]
)
def test_shards_whose_name_says_evaluation_do_not_train(tmp_path: Path, name: str) -> None:
    """As written before such names were known: role "train" under them."""
    write_split(tmp_path, "train-x", speech(8))
    write_split(tmp_path, name, speech(4, 1, 0, "bob"), role="train")
    found = look(tmp_path)
    assert set(found.eval_sets) == {name}
    assert all("train-x" in shard.path for shard in found.shards)
    note = found.note
    assert len(note.splitlines()) == 1
    assert f"split {name}" in note
    assert "its name says evaluation" in note


@pytest.mark.parametrize("name", ["train_dev", "validated", "librivox"])
def test_a_name_that_tells_nothing_leaves_the_role_it_was_given(tmp_path: Path, name: str) -> None:
    write_split(tmp_path, name, speech(8), role="train")
    write_split(tmp_path, "dev-x", speech(4, 1, 0, "bob"), role="eval")
    found = look(tmp_path)
    assert [use["role"] for use in found.splits] == ["train", "eval"]
    assert found.note == ""


@pytest.mark.parametrize("name", ["test", "cv-test", "Test_2", "z/test-clean"])
def test_no_test_split_chooses_the_checkpoint(tmp_path: Path, name: str) -> None:
    write_split(tmp_path, "train-x", speech(8))
    folder = tmp_path / name
    write_split(folder.parent, folder.name, speech(4, 1, 0, "bob"), role="eval")
    write_split(tmp_path, "validation", speech(4, 1, 0, "cid"), role="eval")
    assert look(tmp_path / "train-x", folder, tmp_path / "validation").select == "validation"


@pytest.mark.parametrize("name", ["empty", "emp*", "{empty,empty}", "unfinished"])
@pytest.mark.filterwarnings("ignore:.*not finished")
def test_a_place_without_a_split_to_evaluate_on_is_told(tmp_path: Path, name: str) -> None:
    """Utterances of training would be held out instead, and nobody asked for that."""
    write_split(tmp_path / "shards", "train-x", speech(8))
    (tmp_path / "empty").mkdir()
    made = write_split(tmp_path / "unfinished", "dev-x", speech(4, 5, 500, "bob"), role="eval")
    (made.folder / "index.json").unlink()
    with pytest.raises(OmniError, match="no finished split to evaluate on"):
        choose_sides([str(tmp_path / "shards")], eval_roots=[str(tmp_path / name)])


def room(limit: int, stretch: float = 0.0) -> Room:
    return Room(limit, around=10, stack=4, tok=chat_tokenizer(), stretch=stretch)


@pytest.mark.parametrize(
    ("n_words", "text", "limit", "stretch"),
    [
        (100, "red", 100, 0.0),  # 800 frames: 200 soft tokens
        (2, "w" * 100, 100, 0.0),  # the transcript alone
        (20, "w" * 55, 100, 0.0),  # 40 + 55 + 10: neither alone
        (45, "red", 110, 0.2),  # 90 soft tokens fit, 108 after augmentation don't
    ],
)
def test_rows_too_long_are_left_out_before_the_first_step(
    tmp_path: Path, n_words: int, text: str, limit: int, stretch: float
) -> None:
    samples = speech(6)
    long = speech(1)[0]
    features = long.features[:1].repeat(n_words * 8, 0)
    meta = {**long.meta, "id": "long", "text_norm": text, "n_frames": n_words * 8}
    write_split(tmp_path, "train-x", [*samples, Sample("long", meta, features)], shard_size=4)
    judge = [Sample("longer", {**meta, "id": "longer"}, features), *speech(3, 1, 0, "bob")]
    write_split(tmp_path, "dev-x", judge, role="eval")
    found = look(tmp_path, room=room(limit, stretch))
    assert sum(len(shard.places) for shard in found.shards) == 6
    assert found.shards[1].places == (0, 1)
    assert "1 utterance too long for the LM (longest: long, " in found.note.splitlines()[0]
    assert f"end at {limit}) left out of training (train-x)" in found.note.splitlines()[0]
    if not stretch:  # nothing stretches what is judged
        assert [s.key for s in found.eval_sets["dev-x"]] == [f"bob-{i:04d}" for i in range(3)]
        assert "left out of evaluation (dev-x)" in found.note.splitlines()[1]
    else:
        assert len(found.eval_sets["dev-x"]) == 4
    assert look(tmp_path, room=room(1000)).note == ""


def test_nothing_that_fits_is_refused_with_the_longest(tmp_path: Path) -> None:
    write_split(tmp_path, "train-x", speech(6))
    with pytest.raises(OmniError, match=r"no training utterance fits.*6 utterances.*--stack"):
        look(tmp_path, room=room(12))


def test_tokens_are_counted_where_bytes_could_be_too_many() -> None:
    tok = chat_tokenizer()
    tight = Room(20, 10, 4, tok)
    assert tight.positions(4, "é" * 4, training=False) == 10 + 1 + 8
    assert not tight.fits(4, "é" * 5, training=False)


def test_content_names_what_changed_and_not_where_it_lies(tmp_path: Path) -> None:
    def content(root: Path) -> dict:
        splits = find_splits(root)
        shards = [
            Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n)))
            for s in splits
            for e in s.shards
        ]
        return content_of(splits, shards)

    for root, n, seed in (("a", 8, 0), ("b", 8, 0), ("c", 9, 0), ("d", 8, 1)):
        write_split(tmp_path / root, "train-x", speech(n, seed))
    first = content(tmp_path / "a")
    assert changes(first, content(tmp_path / "b")) == []
    assert changes(first, content(tmp_path / "c")) == ["train-x: 8 utterances, now 9"]
    assert changes(first, content(tmp_path / "d")) == ["train-x: 8 utterances, now others"]
    write_split(tmp_path / "b", "train-y", speech(4))
    both = content(tmp_path / "b")
    assert changes(first, both) == ["train-y: new"]
    assert changes(both, first) == ["train-y: gone"]
    turned = {**both, "splits": both["splits"][::-1]}
    assert changes(both, turned) == ["splits train-x, train-y, now train-y, train-x"]
    assert "take part" in changes(both, {**both, "rows": ""})[0]
