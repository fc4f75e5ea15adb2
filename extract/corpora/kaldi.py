"""A Kaldi data folder: `wav.scp` and `text`, and where they are there `segments`, `utt2spk`, `spk2gender`.

Must not know which files there are.
"""

from pathlib import Path

from extract.corpora.columns import Entry
from extract.corpora.texts import Transcript, merge, read_lines
from omni.errors import OmniError

NEEDED = ("wav.scp", "text")
FILES = (*NEEDED, "segments", "utt2spk", "spk2gender")


def is_kaldi(path: Path) -> bool:
    """Whether it is such a folder, or a file of one."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name in FILES
    return named and all((folder / name).is_file() for name in NEEDED)


def read_kaldi(path: Path) -> list[Entry]:
    """An entry for each line of `text`.

    Args:
        path: the folder or a file in it.

    Raises:
        OmniError: a recording that a command makes or that lies in an archive, an id without a
            recording, times that are none; file and line are named.
    """
    folder = path if path.is_dir() else path.parent
    recordings = {i: (n, rest) for n, i, rest in _lines(folder / "wav.scp")}
    pieces = {i: (n, rest) for n, i, rest in _lines(folder / "segments")}
    speakers = {i: rest for _, i, rest in _lines(folder / "utt2spk")}
    sexes = {i: rest.upper() for _, i, rest in _lines(folder / "spk2gender")}
    texts: dict[str, Transcript] = {}
    for utterance_id, transcript in read_lines(folder / "text"):
        merge(texts, utterance_id, transcript)
    entries = []
    for number, (utterance_id, transcript) in enumerate(texts.items(), start=1):
        recording, start, end, channel = utterance_id, None, None, ""
        if pieces and utterance_id in pieces:
            recording, start, end, channel = _piece(*pieces[utterance_id], folder / "segments")
        elif pieces:
            raise OmniError(f"{utterance_id} of text has no line there", str(folder / "segments"))
        if recording not in recordings:
            raise OmniError(f"no line for {recording}, of {utterance_id}", str(folder / "wav.scp"))
        speaker = speakers.get(utterance_id, "")
        sex = sexes.get(speaker, "")
        audio = _file(*recordings[recording], folder / "wav.scp")
        entries.append(
            Entry(
                number, audio, transcript, speaker, sex,
                start=start, end=end, channel=channel, id=utterance_id,
            )
        )  # fmt: skip
    if not entries:
        raise OmniError("no transcripts there", str(folder / "text"))
    return entries


def _lines(path: Path) -> list[tuple[int, str, str]]:
    """(number, id, rest) of each line; none without the file."""
    if not path.is_file():
        return []
    found = []
    for number, (name, transcript) in enumerate(read_lines(path), start=1):
        if transcript.fault:
            raise OmniError(transcript.fault, f"{path}, line {number}")
        found.append((number, name, transcript.text.strip()))
    return found


def _file(number: int, source: str, path: Path) -> str:
    """The recording's name.

    Raises:
        OmniError: it is no file of its own.
    """
    if source.endswith("|"):
        what = f"row {number}, column 2: a command makes the recording, and no command is run"
        raise OmniError(what, str(path), "write its output to a file, and name that")
    if ".ark:" in source or not source:
        what = f"row {number}, column 2: no file of audio"
        raise OmniError(what, str(path), "write the recording to a file of its own")
    return source


def _piece(number: int, rest: str, path: Path) -> tuple[str, float, float | None, str]:
    """(recording, start, end, channel) of a line of `segments`; an end of -1 is the recording's."""
    fields = rest.split()
    try:
        recording, start, end = fields[0], float(fields[1]), float(fields[2])
        good = 0 <= start < 1e9 and (start < end < 1e9 or end == -1)
    except (IndexError, ValueError):
        good = False
    if not good:
        what = f"row {number}: wanted are an id, a recording, its start and its end in seconds"
        raise OmniError(what, str(path))
    return recording, start, None if end == -1 else end, "".join(fields[3:4])
