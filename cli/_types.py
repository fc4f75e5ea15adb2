"""What an option may be, refused while it is parsed: before anything is loaded, made or written.

Each function makes a type for argparse, and says in its error what would be right. Must not import
what takes long, nor know what an option is for.
"""

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from omni.device import is_device_name
from omni.errors import OmniError

LARGEST_SEED = 2**32 - 1  # what every generator takes
LARGEST = 2**31 - 1


def whole(least: int = 0, most: int = LARGEST) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            bound = f"of at least {least}" if value < least else f"of at most {most}"
            raise ArgumentTypeError(f"{text!r} is not a whole number {bound}")
        return value

    return parse


def number(
    least: float = 0.0,
    most: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> Callable[[str], float]:
    """A finite number from `least` to `most`; above `above` and below `below` where given."""
    words = [f"of at least {least:g}" if above is None else f"above {above:g}"]
    if below is not None or math.isfinite(most):
        words.append(f"at most {most:g}" if below is None else f"below {below:g}")

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = value >= least if above is None else value > above
        inside &= value <= most if below is None else value < below
        if not (math.isfinite(value) and inside):
            raise ArgumentTypeError(f"{text!r} is not a finite number {' and '.join(words)}")
        return value

    return parse


def seed(text: str) -> int:
    """A seed: a whole number that every generator takes."""
    return whole(0, LARGEST_SEED)(text)


def device(text: str) -> str:
    """The name of a device; whether the machine has it shows later."""
    if not is_device_name(text):
        raise ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:0, cuda:1, …")
    return text


def name(text: str) -> str:
    """The name of something in a folder: it can't lead out of it."""
    from omni.formats.files import (
        safe_name,  # a third of a second, for the one option that needs it
    )

    try:
        return safe_name(text, "a folder")
    except OmniError as error:
        raise ArgumentTypeError(str(error)) from None


def some(text: str) -> str:
    """A text that is not empty: the name of a model, a URL, a folder or file."""
    if not text.strip():
        raise ArgumentTypeError("is empty")
    return text


def path(text: str) -> Path:
    """A path. An empty one would be the folder one is in."""
    return Path(some(text))


def language(text: str) -> str:
    """A language's code, `fr` or `yue`; of `fr-CA` the first part."""
    found = re.fullmatch(r"([a-z]{2,3})([-_][a-z0-9]+)*", text.strip().lower())
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no code of a language, like en, fr or zh")
    return found[1]


def layers(text: str) -> str:
    """`last`, `all`, or indices of layers such as 0,3,6; which there are, the encoder tells."""
    if not re.fullmatch(r"last|all|[0-9]{1,3}(,[0-9]{1,3})*", text):
        raise ArgumentTypeError(f"{text!r} is none of last, all, or indices like 0,3,6")
    return text
