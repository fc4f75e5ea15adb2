"""Text files of any origin: bytes to characters, and the transcripts in them.

A line ends at `\\n` or `\\r\\n` and nowhere else: Python's splitlines breaks at nine more characters,
and half a transcript would go with the whole audio. Must not know where audio lies.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from omni.errors import OmniError

TRANS = ".trans.txt"  # LibriSpeech's: `ID TEXT` a line
MEND_ENCODING = "save it as UTF-8, for instance with iconv -f WINDOWS-1252 -t UTF-8"
# UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Transcript(NamedTuple):
    """What is said, or why that can't be told."""

    text: str
    fault: str = ""


def decode(data: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, which is taken off.

    No other encoding is guessed: a wrong guess gives words that nobody said.

    Raises:
        OmniError: another encoding; the line is named.
    """
    mark, encoding = next((m for m in _MARKS if data.startswith(m[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[len(mark) :].count(b"\n", 0, error.start) + 1
        shown = data[len(mark) :][error.start : error.start + 1].hex()
        what = f"line {line} is not {encoding.upper()} (byte 0x{shown})"
        raise OmniError(what, where, MEND_ENCODING) from error
    if "\0" in text:
        what = f"line {text.count(chr(10), 0, text.index(chr(0))) + 1} holds a zero byte"
        raise OmniError(what, where, f"if this is UTF-16, {MEND_ENCODING}")
    return text


def split_lines(text: str) -> list[str]:
    """Lines without their ends; a mark that was left where files were joined is taken off."""
    return [line.removesuffix("\r").removeprefix("\ufeff") for line in text.split("\n")]


def require_line_ends(data: bytes | str, path: Path) -> None:
    """Refuse a list whose lines end at `\\r` alone, as on an old Mac: it would be one long line.

    A `\\r` among lines that end as they should is white space.

    Raises:
        OmniError: it is so.
    """
    if isinstance(data, bytes):
        returns, feeds = b"\r" in data.strip(), b"\n" in data.strip()
    else:
        returns, feeds = "\r" in data.strip(), "\n" in data.strip()
    if returns and not feeds:
        what = "its lines end in a carriage return alone"
        raise OmniError(what, str(path), "convert it, for instance with tr '\\r' '\\n'")


def read_whole(path: Path) -> Transcript:
    """All of a text file as one transcript, single-spaced."""
    try:
        return Transcript(" ".join(" ".join(split_lines(decode(_read(path), ""))).split()))
    except OmniError as error:
        return Transcript("", f"{path.name}: {error}")


def read_lines(path: Path) -> Iterator[tuple[str, Transcript]]:
    """(id, transcript) for each line `ID TEXT` of a file; white space of any kind stands between.

    A line that is not UTF-8 is a fault of its own utterance.

    Raises:
        OmniError: the file can't be read, is UTF-16 without a mark, or has no line ends: not even
            ids can be told.
    """
    data = _read(path)
    if b"\0" in data:
        text = decode(data, str(path))
        require_line_ends(text, path)
        lines = [(line, "") for line in split_lines(text)]
    else:
        require_line_ends(data, path)
        lines = [_decode_line(line, path) for line in data.split(b"\n")]
    for line, fault in lines:
        utterance_id, text = split_id(line)
        if utterance_id:
            yield utterance_id, Transcript("" if fault else text, fault)


def split_id(line: str) -> tuple[str, str]:
    """(id, rest) of a line; empty if nothing is there."""
    parts = re.split(r"\s+", line.strip(), maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def merge(texts: dict[str, Transcript], utterance_id: str, new: Transcript) -> None:
    """Take a transcript in; a second one for the same audio must say the same, or neither counts."""
    old = texts.get(utterance_id, new)
    same = old.text.split() == new.text.split()
    fault = old.fault or new.fault or ("" if same else "two transcripts that differ")
    texts[utterance_id] = Transcript("" if fault else new.text, fault)


def _decode_line(data: bytes, path: Path) -> tuple[str, str]:
    """(line, why it is no text)."""
    try:
        return split_lines(data.decode("utf-8"))[0], ""
    except UnicodeDecodeError as error:
        fault = (
            f"{path.name}: its line is not UTF-8 (byte 0x{data[error.start]:02x}): {MEND_ENCODING}"
        )
        return data.decode("utf-8", "backslashreplace"), fault


def _read(path: Path) -> bytes:
    """Raises:
    OmniError: missing, a folder, a pipe, which may never end, no permission.
    """
    if path.exists() and not path.is_file():
        raise OmniError("no regular file", str(path))
    try:
        return path.read_bytes()
    except OSError as error:
        raise OmniError(f"can't be read ({error.strerror})", str(path)) from error
