"""Cuts of lhotse, a line of JSON each: a piece of a recording, with what is said where in it.

Must not know which files there are.
"""

from pathlib import Path
from typing import Any

from extract.corpora.columns import Entry
from extract.corpora.tables import Row, Table
from extract.corpora.texts import Transcript
from extract.corpora.walk import is_utf8
from omni.errors import OmniError

KEYS = ("id", "type", "start", "duration", "channel", "supervisions", "recording", "tracks")
_TYPES = ("MonoCut", "Cut")


def is_lhotse(table: Table) -> bool:
    """Whether the rows are cuts."""
    first = table.rows[0].values
    return isinstance(first.get("supervisions"), list) or str(first.get("type", "")).endswith("Cut")


def cut_entries(table: Table) -> list[Entry]:
    """An entry for each supervision: the stretch of the recording that its text belongs to.

    Raises:
        OmniError: a cut of several recordings, of a changed one, or of one that is no file; a cut
            without a supervision. Row and column are named.
    """
    return [entry for row in table.rows for entry in _entries(row, table.path)]


def _entries(row: Row, path: Path) -> list[Entry]:
    if row.values.get("type", "MonoCut") not in _TYPES:
        raise _refusal(row, "type", f"{row.values['type']} is more than a piece of one file", path)
    audio, begin, whole = _source(row, path), _time(row, row.values, "start", path), row.values
    duration = _time(row, whole, "duration", path)
    found = row.values.get("supervisions")
    if not isinstance(found, list) or not found or not all(isinstance(s, dict) for s in found):
        raise _refusal(row, "supervisions", "nothing says what is said", path)
    entries = []
    for supervision in found:
        text, speaker = supervision.get("text") or "", supervision.get("speaker") or ""
        if not isinstance(text, str) or not isinstance(speaker, str):
            raise _refusal(row, "supervisions", "text and speaker must be text", path)
        start = begin + _time(row, supervision, "start", path, signed=True)
        end = start + (_time(row, supervision, "duration", path) or duration)
        if not 0 <= start < end:
            raise _refusal(row, "supervisions", "start and duration are no place in the file", path)
        fault = "" if is_utf8(text) else "the text holds half a character"
        utterance_id = row.values.get("id") if len(found) == 1 else supervision.get("id")
        if not isinstance(utterance_id, str) or not utterance_id or not is_utf8(utterance_id):
            raise _refusal(row, "id", "every cut and supervision needs one", path)
        sex = str(supervision.get("gender") or "")[:1].upper()
        entries.append(
            Entry(
                row.number, audio, Transcript("" if fault else text, fault), speaker, sex,
                start=start, end=end, channel=_channel(row, path), id=utterance_id,
            )
        )  # fmt: skip
    return entries


def _source(row: Row, path: Path) -> str:
    """The one file of the recording, as it is."""
    recording = row.values.get("recording")
    sources = recording.get("sources") if isinstance(recording, dict) else None
    if not isinstance(recording, dict) or not isinstance(sources, list) or len(sources) != 1:
        raise _refusal(row, "recording", "a recording with one source is needed", path)
    if recording.get("transforms"):
        raise _refusal(
            row, "recording.transforms", "the recording is changed while it is read", path
        )
    source = sources[0]
    name = source.get("source") if isinstance(source, dict) else None
    if not isinstance(name, str) or not name or source.get("type") != "file":
        raise _refusal(row, "recording.sources", "the source is no file", path)
    return name


def _channel(row: Row, path: Path) -> str:
    """ "" where the cut has all channels."""
    channel = row.values.get("channel")
    if isinstance(channel, list):
        raise _refusal(row, "channel", "several are meant", path)
    return "" if channel is None else str(channel)


def _time(row: Row, values: dict[str, Any], name: str, path: Path, signed: bool = False) -> float:
    """Seconds; 0 where they are not given."""
    value = values.get(name)
    try:
        seconds = 0.0 if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not (-1e9 if signed else 0.0) <= seconds < 1e9:
        raise _refusal(row, name, "no time in seconds", path)
    return seconds


def _refusal(row: Row, column: str, why: str, path: Path) -> OmniError:
    what = f"row {row.number}, column {column}: {why}"
    return OmniError(what, str(path), "write the cuts out as files, one for each")
