"""A recording and its transcript to a manifest's row; what is wrong with them is said in the row.

Must not know how a corpus is laid out or where a transcript was found.
"""

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from extract.corpora.texts import Transcript
from extract.corpora.walk import fault_of, shown, tidy_id
from omni.audio import audio_info
from omni.errors import OmniError, printable
from omni.formats.files import safe_id
from omni.formats.manifest import Problem, Utterance, normalize_text

NO_FILE = "transcript without audio"


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    n_samples: int = 0  # per channel; 0 if it can't be read
    rate: int = 0  # Hz
    problem: Problem = Problem.NONE
    note: str = ""

    @property
    def seconds(self) -> float:
        """Length; 0 if it is not known."""
        return self.n_samples / self.rate if self.rate else 0.0


@dataclass(frozen=True)
class Piece:
    """An utterance before it is a row."""

    id: str
    path: Path | None  # None: there is none
    transcript: Transcript | None  # None: nothing is known to be said
    needs_text: bool = True
    speaker: str = ""
    chapter: str = ""
    sex: str = ""
    start: float = 0.0  # seconds in the file
    length: float = 0.0  # seconds; 0: to the file's end
    missing: str = NO_FILE  # why there is no path, if there is none


def read_headers(paths: Iterable[Path]) -> dict[Path, Header]:
    """The header of each file, each read once."""
    unique = sorted(set(paths))
    with ThreadPoolExecutor(8) as pool:  # headers only, but a network disk answers slowly
        return dict(zip(unique, pool.map(_header, unique), strict=True))


def channel_count(path: Path) -> int:
    """Channels by the header; 0 if it can't be read."""
    import soundfile

    try:
        return soundfile.info(str(path)).channels
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError):
        return 0


def make_row(piece: Piece, root: Path, header: Header) -> Utterance:
    """The manifest's row.

    Args:
        piece: the utterance.
        root: the manifest's.
        header: of its file; not looked at where there is none.
    """
    transcript = piece.transcript or Transcript("")
    problem, note = header.problem, header.note
    if piece.path is None:
        problem, note = Problem.NO_AUDIO, piece.missing
    elif problem == Problem.NO_AUDIO:
        pass  # nothing about its text matters
    elif piece.needs_text and transcript.fault:
        problem, note = Problem.NO_TEXT, transcript.fault
    elif piece.needs_text and not transcript.text:
        problem, note = Problem.NO_TEXT, "audio without transcript"
    seconds = piece.length or max(header.seconds - piece.start, 0.0)
    is_whole = not piece.start and not piece.length
    there = piece.path is not None and problem != Problem.NO_AUDIO
    return Utterance(
        id=_id(piece.id),
        speaker=shown(piece.speaker),
        chapter=piece.chapter,
        sex=piece.sex if piece.sex in ("F", "M") else "",
        audio=piece.path.relative_to(root).as_posix() if piece.path and there else "",
        n_samples=header.n_samples if is_whole else round(seconds * header.rate),
        sample_rate=header.rate,
        start=piece.start,
        length=piece.length,
        text=transcript.text,
        text_norm=normalize_text(transcript.text),
        problem=problem,
        note=note,
    )


def _id(name: str) -> str:
    """A piece's id as shards can hold it; a name with `\\..\\` in it is one on other systems only."""
    try:
        return safe_id(shown(name))
    except OmniError:
        return tidy_id(shown(name).replace("\\", "/"))


def say_left_out(rows: Sequence[Utterance], others: Iterable[tuple[int, str]] = ()) -> None:
    """One line of what will not be extracted, if anything; the rest is in the manifest.

    Args:
        rows: of the manifest.
        others: counts and what they count, for what has no row.
    """
    parts = [f"{n} {what}" for n, what in others if n]
    faulty = [u for u in rows if u.problem]
    if faulty:
        first = f"{faulty[0].id}: {faulty[0].note}"
        parts.append(f"{len(faulty)} of {len(rows)} utterances can't be had, the first: {first}")
    if parts:
        print(printable(" ".join(f"left out: {'; '.join(parts)}".split())), file=sys.stderr)


def _header(path: Path) -> Header:
    fault = fault_of(path)
    if fault:
        return Header(problem=Problem.NO_AUDIO, note=fault)
    try:
        return Header(*audio_info(path))
    except OmniError as error:  # kept as a row: extraction records the failure
        note = f"{error.what}: {error.mend}" if error.mend else error.what
        return Header(problem=Problem.UNREADABLE, note=note)
