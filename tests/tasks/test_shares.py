"""Shares of a mix: refused in words, apportioned to the row.

.venv/bin/python -m pytest tests/tasks/test_shares.py
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import OmniError
from tasks.shares import DEFAULT, apportion, parse_shares, scaled


def test_the_defaults_add_up() -> None:
    text = ",".join(f"{kind}={share}" for kind, share in DEFAULT.items())
    assert parse_shares(text) == DEFAULT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("repeat=0.5", "add up to 0.5"),
        ("repeat=0.9,content=0.2", "add up to 1.1"),
        ("repeat=1,repeat=0", "twice"),
        ("songs=1", "none of repeat"),
        ("repeat=-1,content=2", "no share"),
        ("repeat=nan", "no share"),
        ("repeat=all", "no share"),
        ("repeat", "no share"),
        ("", "none of repeat"),
        ("repeat=1,", "none of repeat"),
    ],
)
def test_shares_that_are_none_are_refused(text: str, told: str) -> None:
    with pytest.raises(OmniError, match=told):
        parse_shares(text)


def test_a_share_of_nothing_is_left_out() -> None:
    assert parse_shares("repeat=1, text=0") == {"repeat": 1.0}


@given(
    st.integers(0, 10_000),
    st.lists(st.floats(0.01, 5), min_size=1, max_size=9),
    st.sampled_from([1, 4]),
)
def test_parts_add_up_and_are_never_a_unit_off(total: int, weights: list[float], unit: int) -> None:
    parts = apportion(total, weights, unit)
    assert sum(parts) == total // unit * unit
    assert all(part % unit == 0 for part in parts)
    whole = total // unit * unit
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - whole * weight / sum(weights)) < unit + 1e-6


def test_what_is_left_keeps_its_proportions() -> None:
    assert scaled({"repeat": 0.4, "voice": 0.2, "text": 0.4}, ["text"]) == pytest.approx(
        {"repeat": 2 / 3, "voice": 1 / 3}
    )
    assert scaled({"text": 1.0}, ["text"]) == {}
