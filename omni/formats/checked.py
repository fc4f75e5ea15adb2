"""JSON and its like from outside, checked against a type at the border: sidecars, indices, metas, runs, LMs.

A file may come from a stranger or be half of what it was. What is not of the type stated is told in
one line that names file and field; nothing behind this point has to look again. Must not know any
of the types.
"""

from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from omni.errors import OmniError
from omni.formats.stores import read_bytes

T = TypeVar("T")


class Schema(TypedDict):
    """The one field that every version of a file has: looked at first."""

    schema: int


JSON_BYTES = 1 << 27  # an index of ten million utterances; more is nobody's


def parse_json(data: bytes | str, kind: type[T], where: str, mend: str = "") -> T:
    """One JSON document as a `kind`: a dataclass, a TypedDict (of typing_extensions), a list of them.

    Strict: a number is no string, a string no number, true no 1; an int may stand for a float.
    Keys that the type does not name are left out.

    Args:
        where: what the error names: a file, or a file and a line.

    Raises:
        OmniError: no JSON, nested too deep, a field that is missing or of another type.
    """
    try:
        adapter = _adapter(cast(Any, kind))
        return cast(T, adapter.validate_json(data, strict=True))
    except ValidationError as error:
        raise OmniError(_first_fault(error), where, mend) from error


def check_value(value: object, kind: type[T], where: str, mend: str = "") -> T:
    """`parse_json` of what is no JSON any more: a document that was loaded from another format.

    Raises:
        OmniError: a field that is missing or of another type.
    """
    try:
        return cast(T, _adapter(cast(Any, kind)).validate_python(value, strict=True))
    except ValidationError as error:
        raise OmniError(_first_fault(error), where, mend) from error


def read_json(path: Path, kind: type[T], mend: str = "") -> T:
    """`parse_json` of a file, local or in a store.

    Raises:
        OmniError: it is not there, can't be read, is longer than JSON_BYTES, or is not a `kind`.
    """
    return parse_json(read_bytes(path, JSON_BYTES, mend), kind, str(path), mend)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_fault(error: ValidationError) -> str:
    """The first of the faults, in words; how many there are more."""
    faults = error.errors(include_url=False, include_context=False)
    first: Any = faults[0]
    place = ".".join(str(part) for part in first["loc"])[:120]  # a stranger's keys may be long
    text = str(first["msg"]).strip()
    shown = f"`{place}`: {text[:1].lower()}{text[1:]}" if place else f"damaged JSON: {text}"
    return shown + (f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else "")
