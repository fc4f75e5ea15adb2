"""Decoding: the same ids with a cache, without one, alone and in a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nanochat_kit import ERA_NAMES, inputs, models, part
from nanochat_reference import ruled_model

from omni.errors import OmniError
from omni.nanochat import NanoChat
from omni.nanochat.build import cast_matrices
from omni.nanochat.generate import generate


def plain_greedy(
    lm: NanoChat, rows: torch.Tensor, ve: torch.Tensor | None, stop: set[int], cap: int
) -> list[int]:
    """The full pass again for every token: what the cache must not change."""
    out: list[int] = []
    while len(out) < cap:
        token = int(lm.forward_embeds(rows, ve)[0, -1].argmax())
        if token in stop:
            break
        out.append(token)
        more_rows, more_ve = lm.embed(torch.tensor([[token]]))
        rows = torch.cat([rows, more_rows], 1)
        ve = None if ve is None or more_ve is None else torch.cat([ve, more_ve], 1)
    return out


@settings(max_examples=12, deadline=None)
@given(
    models(),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 12)), min_size=1, max_size=4),
    st.integers(0, 19),
)
def test_greedy_in_a_batch_is_the_plain_full_pass_of_each_row(
    lm: NanoChat, jobs: list[tuple[int, int]], stop: int
) -> None:
    lengths, caps = [n for n, _ in jobs], [cap for _, cap in jobs]
    rows, ve = inputs(lm, lengths)
    got = generate(lm, rows, ve, torch.tensor(lengths), {stop}, caps)
    for i, (n, cap) in enumerate(jobs):
        want = plain_greedy(lm, rows[[i], :n], part(ve, [i], slice(n)), {stop}, cap)
        assert got[i] == want


@pytest.mark.parametrize("era", ERA_NAMES)
def test_sampling_is_seeded_and_does_not_depend_on_the_batch(era: str) -> None:
    lm = ruled_model(era)
    rows, ve = inputs(lm, [9, 4, 7])
    lengths = torch.tensor([9, 4, 7])

    def sample(seed: int) -> list[list[int]]:
        return generate(lm, rows, ve, lengths, set(), 12, temperature=1.0, top_k=50, seed=seed)

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    alone = generate(
        lm, rows[[1], :4], part(ve, [1], slice(4)), lengths[[1]], set(), 12, 1.0, 50, 1
    )
    assert sample(1)[1] == alone[0]


def test_top_one_is_greedy_whatever_the_temperature() -> None:
    lm = ruled_model("E")
    rows, ve = inputs(lm, [6, 8])
    args = (lm, rows, ve, torch.tensor([6, 8]), set(), 10)
    assert generate(*args, temperature=3.0, top_k=1, seed=9) == generate(*args)


def test_stop_ids_end_a_row_and_are_left_out() -> None:
    lm = ruled_model("E")
    rows, ve = inputs(lm, [6])
    free = generate(lm, rows, ve, torch.tensor([6]), set(), 10)[0]
    assert len(free) == 10
    stopped = generate(lm, rows, ve, torch.tensor([6]), {free[4]}, 10)[0]
    assert stopped == free[: free.index(free[4])]
    assert generate(lm, rows, ve, torch.tensor([6]), set(), 0) == [[]]


def test_a_cap_beyond_the_rotary_table_is_refused_at_once() -> None:
    lm = ruled_model("E", sequence_len=4)
    rows, ve = inputs(lm, [30])
    with pytest.raises(OmniError, match="take 41 positions; the rotary table ends at 40"):
        generate(lm, rows, ve, torch.tensor([30]), set(), 11)
    with pytest.raises(OmniError, match="at least 1"):
        generate(lm, rows, ve, torch.tensor([0]), set(), 1)


@pytest.mark.parametrize("era", ERA_NAMES)
def test_bf16_decodes_from_fp32_rows(era: str) -> None:
    """As on a GPU: bf16 matrices and cache, fp32 rows from a projector."""
    lm = cast_matrices(ruled_model(era), torch.bfloat16)
    rows, ve = inputs(lm, [12, 7])
    whole = lm.forward_embeds(rows, ve)
    cache = lm.new_cache(2, 12)
    assert cache.keys.dtype == torch.bfloat16
    lm.forward_embeds(rows[:, :5], part(ve, slice(None), slice(5)), cache=cache)
    rest = lm.forward_embeds(rows[:, 5:], part(ve, slice(None), slice(5, 12)), cache=cache)
    assert (rest - whole[:, 5:]).abs().mean() < 0.02
    out = generate(lm, rows, ve, torch.tensor([12, 7]), set(), [5, 3])
    assert [len(row) for row in out] == [5, 3]
