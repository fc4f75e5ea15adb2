"""A document with one field changed or gone, for tests that change every field of it in turn."""

import copy
from collections.abc import Sequence
from typing import Any

GONE = object()  # in the place of a value: the field itself is missing


def mutated(document: Any, place: Sequence[Any], value: Any) -> Any:
    """A copy of nested dicts and lists with `value` at `place`, keys and indices from the top."""
    document = copy.deepcopy(document)
    inside = document
    for step in place[:-1]:
        inside = inside[step]
    if value is GONE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return document
