"""What the columns of a table mean: which file, what is said, by whom, and which piece of the file.

A column that would change a row's meaning is obeyed or refused, never passed over. Must not know how
a table is stored, or which files there are.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from extract.corpora.tables import Row, Table, columns_found, fold
from extract.corpora.texts import Transcript
from extract.corpora.walk import is_utf8
from omni.errors import OmniError

# Names in use; the first that is there counts.
AUDIO = (
    *("audio", "path", "file", "file_name", "filename", "audio_filepath", "audio_path"),
    *("audio_file", "wav", "wav_filename", "wav_path", "filepath", "file_path"),
)
TEXT = ("text", "transcript", "sentence", "transcription", "normalized_text", "raw_text")
SPEAKER = ("speaker", "speaker_id", "speaker_name", "client_id", "spk", "spk_id")
SEX = ("sex", "gender")
SPLIT = ("split", "subset", "partition", "set")
NEMO = "audio_filepath"  # a duration without an offset cuts there, and nowhere else
_FEMALE = {"f", "female", "female_feminine", "feminine", "woman"}
_MALE = {"m", "male", "male_masculine", "masculine", "man"}
_MEANINGS = {
    "start": {"start", "begin", "beg", "offset", "onset", "tmin", "xmin"},
    "end": {"end", "stop", "fin", "finish", "tmax", "xmax"},
    "length": {"duration", "dur"},
    "channel": {"channel", "chan"},
}
# Words beside those that leave their meaning, and those that make it one of the text.
_SECONDS = {
    *("time", "s", "sec", "secs", "second", "seconds", "audio", "segment", "seg", "utterance"),
    *("utt", "clip", "t", "ts", "speech", "timestamp"),
}  # fmt: skip
# Two columns that are a piece's times where both hold times, and anything else where not.
_PAIRS = (("from", "to"), ("t0", "t1"), ("t_0", "t_1"))
# Columns that may hold both times in one value.
_INTERVALS = {
    *("timestamp", "timestamps", "segment", "span", "interval", "time", "times", "chunk", "range"),
}  # fmt: skip
_NUMBERED = {"id", "idx", "index", "no", "number", "audio"}
_OF_TEXT = {
    *("char", "chars", "word", "words", "token", "tokens", "text", "line", "date", "year", "page"),
    *("sentence", "sentences"),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A row of a table that was understood. Times are seconds in the file; None: not given."""

    number: int
    audio: str
    transcript: Transcript
    speaker: str = ""
    sex: str = ""
    start: float | None = None
    end: float | None = None
    duration: float | None = None  # None where `end` is given
    cuts_by_duration: bool = False  # a duration alone is the end, not just the file's length
    channel: str = ""  # of a recording with several
    id: str = ""  # "": by the file's name
    split: str = ""  # that the table puts it in, if it holds several
    column: str = "audio"  # that `audio` stands in
    others: tuple[
        tuple[str, str], ...
    ] = ()  # (column, name) of more that name a file, in other words


def is_wanted(name: str) -> bool:
    """Whether a column, by its folded name, matters to anyone here."""
    others = (*chain.from_iterable(_PAIRS), *_INTERVALS, *SPLIT, "length")
    return name in (*AUDIO, *TEXT, *SPEAKER, *SEX, *others) or _meaning(name) != ""


def entries_of(table: Table) -> list[Entry]:
    """Every row, understood.

    Raises:
        OmniError: no column that names the audio or the text; a row and a column that can't be
            obeyed: audio without a path, a value that is no text, times in other units.
    """
    named = {name for row in table.rows for name in row.values}
    for names, what in ((AUDIO, "names the audio"), (TEXT, "holds the transcript")):
        if not named.intersection(names):
            mend = f"{columns_found(table.columns)}; wanted is one of {', '.join(names[:6])}"
            raise OmniError(f"no column {what}", str(table.path), mend)
    return [_entry(row, table.path) for row in table.rows]


def _entry(row: Row, path: Path) -> Entry:
    column, audio = _audio(row, path)
    start, end, duration = _span(row, path)
    text = _first(row, TEXT, path)
    fault = "" if is_utf8(text) else "the text holds half a character"
    sex = _first(row, SEX, path).casefold()
    channels = [name for name in row.values if _meaning(name) == "channel"]
    return Entry(
        number=row.number,
        audio=audio,
        transcript=Transcript("" if fault else text, fault),
        column=column,
        others=_others(row, column, audio),
        speaker=_first(row, SPEAKER, path),
        sex="F" if sex in _FEMALE else "M" if sex in _MALE else "",
        start=start,
        end=end,
        duration=duration,
        cuts_by_duration=NEMO in row.values,
        channel=_first(row, channels, path),
        split=next((v for n in SPLIT if isinstance(v := row.values.get(n), str) and v), ""),
    )


def _audio(row: Row, path: Path) -> tuple[str, str]:
    """(column, name of the file)."""
    name = next((n for n in AUDIO if row.values.get(n) not in (None, "")), "")
    value = row.values.get(name)
    if isinstance(value, dict):
        if not value.get("path"):
            what = f"row {row.number}, column {name}: it holds no path of a file"
            raise OmniError(what, str(path), "write the files out, and name them")
        value = value["path"]
    text = _text(value, row, name, path)
    if not text:
        raise OmniError(f"row {row.number} names no audio file", str(path))
    if "\0" in text or len(text) > 4096:
        raise OmniError(f"row {row.number}, column {name}: no file's name", str(path))
    return name, text


def _others(row: Row, column: str, audio: str) -> tuple[tuple[str, str], ...]:
    """(column, name) of the other columns that could have named the file, where they name one."""
    found = []
    for name in AUDIO:
        value = row.values.get(name)
        value = value.get("path") if isinstance(value, dict) else value
        text = value.strip() if isinstance(value, str) else ""
        if name != column and text not in ("", audio) and not text.isdecimal():  # a count
            found.append((name, text))
    return tuple(found)


def _first(row: Row, names: Iterable[str], path: Path) -> str:
    """The first of the columns that is there, as text."""
    name = next((n for n in names if row.values.get(n) is not None), "")
    return _text(row.values.get(name), row, name, path)


def _text(value: Any, row: Row, name: str, path: Path) -> str:
    """A value as it is written; a missing one is empty.

    Raises:
        OmniError: it is neither text nor a number.
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return value.strip()
        case int() | float():
            return "" if value != value else str(value)  # a NaN is pandas' missing value
    what = f"row {row.number}, column {name}: {type(value).__name__}, no text"
    raise OmniError(what, str(path), "the column must hold text")


def _span(row: Row, path: Path) -> tuple[float | None, float | None, float | None]:
    """(start, end, duration) in seconds; the duration only where nothing says the end.

    Raises:
        OmniError: no number, other units, two columns for one thing, an end before the start.
    """
    found: dict[str, tuple[str, float]] = {}
    odd = ""
    paired = _paired(row)
    for name in row.values:
        meaning = paired.get(name) or _meaning(name)
        value = _text(row.values[name], row, name, path) if meaning else ""
        if not value or meaning == "channel":
            continue
        if meaning == "unit":
            odd = odd or name
            continue
        seconds = _seconds(value)
        if seconds is None or meaning in found:
            two = f"says the {meaning} too, beside {found[meaning][0]}" if meaning in found else ""
            what = two or f"{value[:40]!r} is no time in seconds"
            raise OmniError(f"row {row.number}, column {name}: {what}", str(path))
        found[meaning] = (name, seconds)
    if odd and not (_is_length(odd) and "start" not in found and "end" not in found):
        what = f"row {row.number}, column {odd}: a place in the file that is not in seconds"
        raise OmniError(what, str(path), "give start and end, in seconds, or leave the column out")
    start, end, duration = (found[m][1] if m in found else None for m in ("start", "end", "length"))
    _refuse_hidden(row, path, start is not None and end is None and duration is None)
    if start is not None and end is None and duration is not None:
        start, end, duration = start, start + duration, None
    elif end is not None:
        duration = None
    if end is not None and end <= (start or 0.0):
        raise OmniError(f"row {row.number}: the piece ends before it begins", str(path))
    return start, end, duration


def _paired(row: Row) -> dict[str, str]:
    """Meanings of columns that are times only where both of a pair hold times."""
    for start, end in _PAIRS:
        one, two = (_seconds(str(row.values.get(n, "")).strip() or "?") for n in (start, end))
        if one is not None and two is not None:
            return {start: "start", end: "end"}
    return {}


def _refuse_hidden(row: Row, path: Path, lacks_end: bool) -> None:
    """Refuse a piece that is told in a way that is not read.

    Raises:
        OmniError: two times in one value; a `length`, of unknown unit, behind a start.
    """
    mend = "give start and end, in seconds, a column each"
    for name in _INTERVALS & row.values.keys():
        if _is_interval(row.values[name]):
            what = f"row {row.number}, column {name}: a piece of the file in one value"
            raise OmniError(what, str(path), mend)
    if lacks_end and row.values.get("length") not in (None, ""):
        what = f"row {row.number}, column length: behind a start, is it seconds?"
        raise OmniError(what, str(path), f"call it duration if it is; {mend}")


def _is_interval(value: Any) -> bool:
    """`[0.5, 2]`, `0.5-2.0`, `0:01.5 --> 0:02`: two times, the first of them smaller."""
    if isinstance(value, dict):
        value = [value.get(name) for name in ("start", "end")]
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    parts = re.split(r"\s*(?:,|;|-->|-|\u2013|\s|\.\.)\s*", text.strip(" ()[]"))
    times = [_seconds(part) if part else None for part in parts]
    one, two = times if len(times) == 2 else (None, None)
    return one is not None and two is not None and one < two


def _seconds(value: str) -> float | None:
    """`12.5`, `1:02.5` or `00:01:02.5`; None for anything else, for what is negative or not finite."""
    if not re.fullmatch(r"(\d+:){0,2}\d*\.?\d*(e[+-]?\d{1,2})?", value.lower()) or value == ".":
        return None
    seconds = 0.0
    try:
        for part in value.split(":"):
            seconds = 60 * seconds + float(part)
    except ValueError:
        return None
    return seconds if seconds < 1e9 else None


@lru_cache(maxsize=1024)
def _meaning(name: str) -> str:
    """`start`, `end`, `length` or `channel`, told by a column's words; `unit` for a place in another
    unit than seconds; empty for everything else."""
    joined = re.sub(r"(start|begin|end|stop)(time|sec)", r"\1 \2", fold(name))
    words = {word for word in re.split(r"[^a-z]+", joined) if word}
    for meaning, keys in _MEANINGS.items():
        others = words - keys
        if others == words or others & _OF_TEXT:
            continue
        if meaning == "channel":
            return meaning if others <= _NUMBERED else ""
        return meaning if others <= _SECONDS else "unit"
    return ""


def _is_length(name: str) -> bool:
    return any(word in fold(name) for word in _MEANINGS["length"])
