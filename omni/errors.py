"""The one exception a user ever sees: what went wrong, where, and how to mend it.

Must not know about any stage: it is raised from everywhere and caught by the commands.
"""

import contextlib
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any


class OmniError(Exception):
    """Bad input or a broken environment, told in one line.

    Args:
        what: what is wrong, in words ("tokenizer has 2,048 tokens, the model 32,768").
        where: the file, key, shard or option concerned; empty if there is none.
        mend: what the user can do about it; empty if nothing but reading helps.
        exit_code: exit status of the command that meets it (1 unless stated).
    """

    def __init__(self, what: str, where: str = "", mend: str = "", exit_code: int = 1) -> None:
        self.what = what
        self.where = where
        self.mend = mend
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        """One line: `what (where): mend`; line breaks inside the parts are folded."""
        line = self.what
        if self.where:
            line += f" ({self.where})"
        if self.mend:
            line += f": {self.mend}"
        return " ".join(line.split())

    def __reduce__(self) -> tuple[type["OmniError"], tuple[str, str, str, int]]:
        """Worker processes hand it to the parent whole."""
        return (OmniError, (self.what, self.where, self.mend, self.exit_code))


class SaidElsewhere(OmniError):  # noqa: N818  it is the end of a process, not what is wrong
    """Another process of the same run says what is wrong: this one ends with the same status, and
    without a line of its own."""


# What torch raises as a plain error of another kind where memory ran out: its allocator on a CPU,
# pinned memory, and the libraries that allocate beside it.
_FULL = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a device's, or a CPU's under torch (not imported for this).

    Where torch has no type for it, nothing but its words tell. Here alone a message is looked into.
    """
    torch: Any = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is None:
        return False
    if isinstance(error, torch.OutOfMemoryError):
        return True
    of_torch = type(error) is RuntimeError or isinstance(error, torch.AcceleratorError)
    return of_torch and any(words in str(error) for words in _FULL)


@contextlib.contextmanager
def enough_memory(where: str, mend: str) -> Iterator[None]:
    """What happens inside may run out of memory.

    Raises:
        OmniError: it did; says where, and how to take less.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OmniError("out of memory", where, mend) from error


def halved(value: int, option: str, otherwise: str = "") -> str:
    """The option with half its value, in words; where it can't be halved, `otherwise`."""
    if value < 2 and otherwise:
        return otherwise
    return f"{option} {max(value // 2, 1)} halves it"


def one_line(text: str, most: int = 200) -> str:
    """Text folded to one line of at most `most` characters; a library's message can be a page."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most] + " …"


def brief(error: BaseException, most: int = 200) -> str:
    """Kind and words of somebody else's exception, as `one_line` folds them."""
    return one_line(f"{type(error).__name__}: {error}".rstrip(": "), most)


def printable(text: str) -> str:
    """Text fit for a terminal: control and other invisible characters escaped, as `\\x1b`.

    A transcript, a file's name or a message may hold whatever its author put there, and a terminal
    obeys it.
    """
    return "".join(
        c if c == " " or (c.isprintable() and unicodedata.category(c) != "Cf") else _escaped(c)
        for c in text
    )


def _escaped(c: str) -> str:
    if "\ud800" <= c <= "\udfff":  # a byte of a file's name that was no UTF-8
        return f"\\x{ord(c) & 0xFF:02x}"
    return c.encode("unicode_escape").decode()
