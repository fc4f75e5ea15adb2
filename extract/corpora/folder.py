"""Any folder of audio, with transcripts in a table, beside the files, or in none.

Must not know about encoders or shards.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from omni.audio import audio_info
from omni.errors import OmniError
from omni.formats.manifest import Manifest, Problem, Utterance, make_manifest, normalize_text

SUFFIXES = frozenset((".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf"))
# Names in use for the columns of a table of transcripts, the first that is there counts.
AUDIO_COLUMNS = ("audio", "path", "file", "file_name", "audio_filepath", "wav")
TEXT_COLUMNS = ("text", "transcript", "sentence", "transcription")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
SEX_COLUMNS = ("sex", "gender")


def folder_manifest(
    folder: Path, split: str, transcripts: str = "auto", role: str | None = None
) -> Manifest:
    """List a folder.

    Args:
        folder: searched to any depth; an utterance's id is its path in it without the suffix.
        split: name of the split that becomes of it.
        transcripts: a TSV, CSV, JSONL or parquet table; "auto" for `NAME.txt` beside `NAME.wav` or
            LibriSpeech's `.trans.txt`; "none" for audio without text.
        role: "train" or "eval"; None: by the split's name.

    Returns:
        A row for each audio file and each line of the table; what lacks its other half says so in
        `problem`.

    Raises:
        OmniError: no folder, no audio, an unreadable table, or no transcript found for any file.
    """
    if not folder.is_dir():
        raise OmniError("no such folder", f"--audio-dir {folder}")
    audio: dict[str, Path] = {}
    for path in _audio_files(folder):
        utterance_id = path.relative_to(folder).with_suffix("").as_posix()
        if utterance_id in audio:
            raise OmniError(
                f"two audio files for {utterance_id}", f"{audio[utterance_id]} and {path}"
            )
        audio[utterance_id] = path
    if not audio:
        raise OmniError(
            "no audio files there",
            f"--audio-dir {folder}",
            f"looked for {' '.join(sorted(SUFFIXES))}",
        )
    if transcripts == "none":
        rows: dict[str, dict[str, str]] = {utterance_id: {} for utterance_id in audio}
    elif transcripts == "auto":
        rows = dict(_texts_beside(folder, audio))
    else:
        rows = dict(_texts_of_table(Path(transcripts), folder))
    if not rows:
        raise OmniError(
            "no transcripts there",
            f"--audio-dir {folder}",
            "name a table with --transcripts, or give --transcripts none",
        )
    ids = sorted(audio.keys() | rows.keys())
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(
            lambda i: _row(i, folder, audio.get(i), rows.get(i), transcripts != "none"), ids
        )
        return make_manifest(split, folder, made, role)


def _audio_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def _texts_beside(folder: Path, audio: dict[str, Path]) -> Iterator[tuple[str, dict[str, str]]]:
    """`.trans.txt` lines of a folder, then `NAME.txt` files."""
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            if name:
                yield (path.parent.relative_to(folder) / name).as_posix(), {"text": text.strip()}
    for utterance_id, path in audio.items():
        beside = path.with_suffix(".txt")
        if beside.is_file():
            yield utterance_id, {"text": " ".join(beside.read_text(encoding="utf-8").split())}


def _texts_of_table(table: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for number, row in enumerate(read_table(table), start=1):
        audio = _first(row, AUDIO_COLUMNS)
        if not audio:
            raise OmniError(
                f"row {number} names no audio file",
                str(table),
                f"a column {', '.join(AUDIO_COLUMNS)} is needed",
            )
        path = Path(audio)
        if path.is_absolute() and path.is_relative_to(folder.absolute()):
            path = path.relative_to(folder.absolute())
        yield (
            path.with_suffix("").as_posix(),
            {
                "text": _first(row, TEXT_COLUMNS),
                "speaker": _first(row, SPEAKER_COLUMNS),
                "sex": _first(row, SEX_COLUMNS)[:1].upper(),
            },
        )


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a TSV, CSV, JSONL or parquet file, by column name.

    Raises:
        OmniError: no such file, another kind, or unreadable.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    known = (*AUDIO_COLUMNS, *TEXT_COLUMNS, *SPEAKER_COLUMNS, *SEX_COLUMNS)
    as_text = pa.csv.ConvertOptions(column_types={name: pa.string() for name in known})
    kind = path.suffix.lower()
    try:
        if kind in (".tsv", ".csv"):
            # A quotation mark in a TSV is part of the sentence, as Common Voice has it.
            tabs = pa.csv.ParseOptions(delimiter="\t", quote_char=False)
            parse = tabs if kind == ".tsv" else None
            table = pa.csv.read_csv(path, parse_options=parse, convert_options=as_text)
        elif kind in (".jsonl", ".json"):
            table = pa.json.read_json(path)
        elif kind == ".parquet":
            table = pa.parquet.read_table(path)
        else:
            raise OmniError(
                f"transcripts in a {kind or 'suffixless'} file",
                str(path),
                "use tsv, csv, jsonl or parquet",
            )
    except (OSError, pa.ArrowException) as error:
        raise OmniError("the transcripts can't be read", str(path), str(error)) from error
    return table.to_pylist()


def _first(row: dict[str, Any], names: Iterable[str]) -> str:
    """The first of the columns that has a value, as text."""
    return next((str(row[name]) for name in names if row.get(name) not in (None, "")), "")


def _row(
    utterance_id: str, folder: Path, path: Path | None, row: dict[str, str] | None, need_text: bool
) -> Utterance:
    row = row or {}
    problem, note, n_samples, rate = Problem.NONE, "", 0, 0
    if path is None:
        problem, note = Problem.NO_AUDIO, "transcript without audio"
    elif need_text and not row.get("text"):
        problem, note = Problem.NO_TEXT, "audio without transcript"
    else:
        try:
            n_samples, rate = audio_info(path)
        except OmniError as error:  # kept as a row: extraction records the failure
            problem, note = Problem.UNREADABLE, error.what
    sex = row.get("sex", "")
    return Utterance(
        id=utterance_id,
        speaker=row.get("speaker", ""),
        sex=sex if sex in ("F", "M") else "",
        audio=path.relative_to(folder).as_posix() if path else "",
        n_samples=n_samples,
        sample_rate=rate,
        text=row.get("text", ""),
        text_norm=normalize_text(row.get("text", "")),
        problem=problem,
        note=note,
    )
