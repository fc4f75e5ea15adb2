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
from train.bounds import LARGEST, SEED, Bounds


def within(bounds: Bounds) -> Callable[[str], float]:
    """A number that `bounds` hold: an int where they ask for one."""

    def parse(text: str) -> float:
        try:
            value = int(text) if bounds.whole else float(text)
        except ValueError:
            value = math.nan
        if not bounds.hold(value):
            raise ArgumentTypeError(f"{text!r} is not {bounds}")
        return value

    return parse


def auto_or(parse: Callable[[str], float]) -> Callable[[str], float | None]:
    """What `parse` takes, or the word auto: None."""

    def choose(text: str) -> float | None:
        return None if text == "auto" else parse(text)

    return choose


def whole(least: int = 0, most: int = LARGEST) -> Callable[[str], float]:
    """A whole number from `least` to `most`."""
    return within(Bounds(least, most, whole=True))


def number(
    least: float = 0.0, most: float = math.inf, above: float = -math.inf
) -> Callable[[str], float]:
    """A finite number from `least` to `most`, and above `above`."""
    return within(Bounds(least, most, above))


def seed(text: str) -> float:
    """A seed: a whole number that every generator takes."""
    return within(SEED)(text)


def device(text: str) -> str:
    """The name of a device. Whether the machine has it shows later, as with files that are not there:
    status 1, where a name that no machine has is wrong usage, 2."""
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
    if "\0" in text:  # a shell passes none on, a program that calls `main` may
        raise ArgumentTypeError(f"{text!r} holds a zero byte")
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
