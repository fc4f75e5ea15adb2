"""How much of a mix each kind is, and how many rows that makes. Must not know what the kinds are about."""

import math
from collections.abc import Mapping, Sequence

from omni.errors import OmniError

KINDS = ("repeat", "content", "voice", "self", "none", "text")
DEFAULT = {"repeat": 0.3, "content": 0.25, "voice": 0.2, "self": 0.1, "none": 0.05, "text": 0.1}
_WHERE = "--shares"
_MEND = "as in --shares repeat=0.5,content=0.5"


def parse_shares(text: str) -> dict[str, float]:
    """`repeat=0.3,content=0.7` as shares of the rows.

    Raises:
        OmniError: a kind that is none, or twice; what is no number from 0 to 1; a sum that is not 1.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in KINDS:
            raise OmniError(f"{name!r} is none of {', '.join(KINDS)}", _WHERE, _MEND)
        if name in found:
            raise OmniError(f"{name} is there twice", _WHERE, _MEND)
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] <= 1:
            raise OmniError(f"{name}={value} is no share from 0 to 1", _WHERE, _MEND)
    total = sum(found.values())
    if abs(total - 1) > 1e-6:
        raise OmniError(f"the shares add up to {total:g}, not to 1", _WHERE, _MEND)
    return {name: share for name, share in found.items() if share}


def scaled(shares: Mapping[str, float], without: Sequence[str]) -> dict[str, float]:
    """The shares of the rest, adding up to 1 again."""
    rest = {name: share for name, share in shares.items() if name not in without}
    total = sum(rest.values())
    return {name: share / total for name, share in rest.items()} if total else {}


def apportion(total: int, weights: Sequence[float], unit: int = 1) -> list[int]:
    """`total` in parts like `weights`, by largest remainder; each a multiple of `unit`, so that
    less than `unit` of the total may be left over."""
    units, whole = total // unit, sum(weights)
    exact = [units * weight / whole for weight in weights]
    parts = [math.floor(x) for x in exact]
    most = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in most[: units - sum(parts)]:
        parts[i] += 1
    return [part * unit for part in parts]
