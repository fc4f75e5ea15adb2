"""Public-domain English that a package manager can install: the King James Bible, five novels.

Debian packages `bible-kjv` and `r-cran-janeaustenr`. *Sense and Sensibility* is left out, because
the human recordings that the tests listen to are read from it.
"""

import re
import struct
import subprocess
import zlib
from pathlib import Path

from omni.errors import OmniError

NOVELS = Path("/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
LEFT_OUT = "SENSE AND SENSIBILITY"
_STRING = b"\x00\x04\x00\x09"  # R's serialisation: an ASCII CHARSXP, then its length


def bible_verses() -> list[str]:
    """The verses of the King James Bible, in order, as printed by `bible`.

    Raises:
        OmniError: the program is not installed.
    """
    try:
        done = subprocess.run(
            ["bible", "-l100000", "Gen1:1-Rev22:21"], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise OmniError("no `bible` program", mend="apt-get install bible-kjv") from error
    verses = re.findall(r"^ *\d+ (.+)$", done.stdout, flags=re.MULTILINE)
    return [" ".join(verse.split()) for verse in verses]


def novel_paragraphs() -> list[str]:
    """The paragraphs of five Jane Austen novels, in the order of the package.

    Raises:
        OmniError: the package is not installed.
    """
    if not NOVELS.is_file():
        raise OmniError("no novels", where=str(NOVELS), mend="apt-get install r-cran-janeaustenr")
    paragraphs: list[str] = []
    for lines in _novels(NOVELS.read_bytes()):
        if lines[0].strip().upper() != LEFT_OUT:
            text = "\n".join(lines)
            paragraphs += [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()]
    return paragraphs


def sentences(paragraphs: list[str]) -> list[str]:
    """Sentences of the paragraphs, as printed, in order."""
    pieces = (re.split(r"(?<=[.!?;:])[\"')]*\s+", p) for p in paragraphs)
    return [s for piece in pieces for s in piece if s]


def normalise(text: str) -> str:
    """Lower case, letters and apostrophes only, single blanks: how a transcript is written."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", text.lower().replace("’", "'")))


def _novels(data: bytes) -> list[list[str]]:
    """Lines of each novel. An .rdb is a run of [length, zlib stream] of serialised R objects."""
    novels, at = [], 0
    while at < len(data):
        stream = zlib.decompressobj()
        (length,) = struct.unpack_from(">I", data, at)
        raw = stream.decompress(data[at + 4 :])
        if len(raw) != length:
            raise OmniError("damaged .rdb", where=str(NOVELS), mend="reinstall the package")
        at = len(data) - len(stream.unused_data)
        novels.append(_strings(raw))
    return novels


def _strings(raw: bytes) -> list[str]:
    """The strings of one serialised character vector."""
    strings, at = [], raw.index(_STRING)
    while raw[at : at + 4] == _STRING:
        (length,) = struct.unpack_from(">i", raw, at + 4)
        strings.append(raw[at + 8 : at + 8 + length].decode("ascii"))
        at += 8 + length
    return strings
