"""A hundredth of the data is held out, whoever says it, and what is held out can be judged by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import OmniError
from train.heldout import HeldOut, hold_out
from train.roll import Known


def people(*spec: tuple[str, int], text: str = "{0} {1}") -> list[Known]:
    """Utterances by speaker and number, each with a text and audio of its own."""
    return [
        Known(f"{name}-{i:04d}", name, text.format(name, i), f"{name}{i}")
        for name, n in spec
        for i in range(n)
    ]


def by_speaker(held: HeldOut) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in (i.rpartition("-")[0] for i in held.ids):
        counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.parametrize(
    ("spec", "held"),
    [
        ([("ann", 40), ("zoe", 2)], {"zoe": 2}),
        ([("big", 1000), ("a", 3), ("b", 3)], {"a": 3, "b": 3}),
        ([("big", 50), ("a", 2), ("b", 2)], {"b": 2}),
        ([("me", 60)], {"me": 2}),
        ([("me", 120)], {"me": 2}),
        ([("me", 500)], {"me": 5}),
        ([("", 400), ("ann", 30), ("bob", 50)], {"ann": 30}),
        ([("", 400)], {"": 4}),
        ([("ann", 10), ("bob", 10), ("cid", 10)], None),
        ([("ann", 1), ("bob", 1), ("cid", 1)], None),
    ],
)
def test_a_hundredth_of_the_data_and_speakers_whole(
    spec: list[tuple[str, int]], held: dict[str, int] | None
) -> None:
    chosen = hold_out(people(*spec))
    if held is None:
        assert len(chosen.ids) == 2
    else:
        assert by_speaker(chosen) == held
    assert "gap" not in chosen.note


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 3)), min_size=3),
    st.randoms(),
)
def test_never_more_than_a_tenth_always_two_texts_if_there_are(
    rows: list[tuple[str, int]], random: object
) -> None:
    known = [Known(f"u{i}", who, f"t{text}", "") for i, (who, text) in enumerate(rows)]
    held = hold_out(known)
    n = len(known)
    assert 2 <= len(held.ids) <= max(2, n // 10) < n
    texts = {k.text for k in known if k.id in held.ids}
    if len({k.text for k in known}) > 1:
        assert len(texts) > 1
    else:
        assert "no gap can be computed" in held.note
    shuffled = list(known)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hold_out(shuffled) == held


def test_a_small_speaker_of_one_text_gets_company() -> None:
    known = people(("ann", 40)) + people(("zoe", 2), text="hello")
    assert by_speaker(hold_out(known)) == {"zoe": 2, "ann": 1}


def test_equal_audio_under_another_id_leaves_training_with_it() -> None:
    known = people(("ann", 60))
    held = hold_out(known).ids
    first = next(k for k in known if k.id == held[0])
    twin = Known("twin", "ann", "something else", first.sha256)
    again = hold_out([*known, twin])
    assert (again.twins == ("twin",)) == (again.ids == held)
    assert first.id in again.ids or "twin" in again.ids
    one_sound = [k._replace(sha256="same") for k in known]
    assert "their audio trains as well, under 58 other ids" in hold_out(one_sound).note


@pytest.mark.parametrize("n_common", [20, 150, 190])
@pytest.mark.parametrize("speakers", [("ann",), ("ann", "bob"), tuple("abcdefghijklmnopqrst")])
def test_audio_that_many_ids_share_is_not_held_out_where_there_is_other(
    n_common: int, speakers: tuple[str, ...]
) -> None:
    for start in range(10):  # whatever the hashes say
        known = [
            Known(
                f"{start}-{i}",
                speakers[i % len(speakers)],
                f"t{i}",
                "hum" if i < n_common else f"{i}",
            )
            for i in range(200)
        ]
        held = hold_out(known)
        assert len(held.ids) >= 2
        assert not {k.sha256 for k in known if k.id in held.ids} & {"hum"}
        assert "trains as well" not in held.note


def test_one_utterance_is_refused() -> None:
    with pytest.raises(OmniError, match="a single utterance"):
        hold_out(people(("ann", 1)))
    assert len(hold_out(people(("ann", 2))).ids) == 1
