"""Say what was said, in the form that is asked for. Must not know where the words come from."""

from collections.abc import Callable

from tasks.wordings import REPEAT

_LONGEST = 16  # words of a sentence that is to be turned round


def repeat_kinds(role: str) -> dict[str, tuple[tuple[str, ...], Callable[[list[str]], str]]]:
    """By kind: its wordings for a table's role, and its answer to the words ("" for none)."""
    forms: dict[str, Callable[[list[str]], str]] = {
        "plain": " ".join,
        "upper": lambda words: " ".join(words).upper(),
        "first-three": lambda words: " ".join(words[:3]) if len(words) > 3 else "",
        "backwards": lambda words: " ".join(words[::-1]) if 1 < len(words) <= _LONGEST else "",
    }
    return {
        "repeat" if form == "plain" else f"repeat/{form}": (REPEAT[form].of(role), answer)
        for form, answer in forms.items()
    }
