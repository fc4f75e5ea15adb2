"""Any folder of audio, with transcripts in a table, beside the files, or in none.

Must not know about encoders or shards.
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from extract.corpora.columns import Entry
from extract.corpora.entries import read_entries
from extract.corpora.listed import listed_pieces
from extract.corpora.rows import Header, Piece, make_row, read_headers, say_left_out
from extract.corpora.texts import TRANS, Transcript, merge, read_lines, read_whole
from extract.corpora.walk import Names, Tree, shown, tidy_id, unique_ids, walk
from omni.audio import AUDIO_SUFFIXES
from omni.errors import OmniError
from omni.formats.manifest import Manifest, make_manifest, role_of
from omni.formats.records import Role


def folder_manifest(
    folder: Path, split: str, transcripts: str = "auto", role: Role | None = None
) -> Manifest:
    """List a folder.

    Args:
        folder: searched to any depth; an utterance's id is its path in it without the suffix.
        split: name of the split that becomes of it.
        transcripts: a table (see `extract.corpora.entries`), which selects what it names; "auto" for
            `NAME.txt` beside `NAME.wav` or LibriSpeech's `.trans.txt`; "none" for audio without text.
        role: "train" or "eval"; None: by the split's name.

    Returns:
        A row for each audio file or for each line of the table; what can't be extracted says so in
        `problem`. One line on stderr sums that up.

    Raises:
        OmniError: no folder, no audio, an unreadable table, no transcript found for any file, two
            files of one id, or a split's name that does not tell the role.
    """
    if not folder.is_dir():
        raise OmniError("no such folder", f"--audio-dir {shown(folder)}")
    told, role = role is not None, role or role_of(split)
    tree = walk(folder)
    if not tree.audio:
        mend = f"looked for {' '.join(sorted(AUDIO_SUFFIXES))}"
        raise OmniError("no audio files there", f"--audio-dir {folder}", mend)
    if transcripts in ("auto", "none"):
        pieces, others = _pieces_of_files(tree, transcripts == "auto")
        headers = read_headers(piece.path for piece in pieces if piece.path)
    else:
        if re.match(r"[a-z][a-z0-9+.-]+://", transcripts.lower()):
            raise OmniError(
                "a table is read from a disk", transcripts, "download it, name the file"
            )
        entries = read_entries(Path(transcripts))
        if role == "train" and not told:
            _refuse_evaluation(entries, split, transcripts)
        listed = listed_pieces(entries, tree, Path(transcripts))
        pieces, headers = listed.pieces, listed.headers
        others = [
            (listed.unlisted, "files of the folder are not in the table"),
            (listed.repeated, "rows of the table say again what another says"),
        ]
    rows = [make_row(p, folder, headers[p.path] if p.path else Header()) for p in pieces]
    say_left_out(rows, [*others, (len(tree.closed), "folders can't be entered")])
    return make_manifest(split, folder, rows, role)


def _refuse_evaluation(entries: Sequence[Entry], split: str, table: str) -> None:
    """Refuse to train on what the table itself puts aside.

    Raises:
        OmniError: rows of a split that evaluates by its name.
    """
    sides = dict.fromkeys({entry.split for entry in entries}, "train")
    for name in sides:
        with contextlib.suppress(OmniError):  # a name that does not tell
            sides[name] = role_of(name)
    rows = [entry for entry in entries if sides[entry.split] == "eval"]
    if rows:
        what = f"{len(rows)} rows are of split {rows[0].split}, row {rows[0].number} the first"
        mend = (
            f"split {split} trains: leave them out, or say --role train (or eval) if all is meant"
        )
        raise OmniError(what, table, mend)


def _pieces_of_files(tree: Tree, needs_text: bool) -> tuple[list[Piece], list[tuple[int, str]]]:
    """A piece for each recording and each transcript; what is left over, in numbers.

    Raises:
        OmniError: two files of one id; no transcripts where they are needed.
    """
    audio = unique_ids((tree.id_of(path), path) for path in tree.audio)
    if not needs_text:
        return [Piece(i, path, None, needs_text=False) for i, path in audio.items()], []
    texts, stray = texts_beside(tree, audio)
    if not texts:
        mend = "name a table with --transcripts, or give --transcripts none"
        raise OmniError("no transcripts there", f"--audio-dir {tree.folder}", mend)
    ids = sorted(audio.keys() | texts.keys())
    pieces = [Piece(i, audio.get(i), texts.get(i)) for i in ids]
    return pieces, [(stray, "text files belong to no recording")]


def texts_beside(tree: Tree, audio: dict[str, Path]) -> tuple[dict[str, Transcript], int]:
    """Transcripts by utterance id: `.trans.txt` lines and `NAME.txt` files.

    Returns:
        The transcripts, and how many `.txt` files belong to no recording.
    """
    names = Names(audio)
    texts: dict[str, Transcript] = {}
    stray = 0
    for path in tree.texts:
        if path.name.lower().endswith(TRANS):
            below = path.parent.relative_to(tree.folder)
            for name, transcript in read_lines(path):
                utterance_id = tidy_id((below / name).as_posix())
                merge(texts, names.find(utterance_id) or utterance_id, transcript)
        elif (mine := names.find(tree.id_of(path))) is not None:
            merge(texts, mine, read_whole(path))
        else:
            stray += 1
    return texts, stray
