"""LibriSpeech's layout on disk to a manifest.

`LibriSpeech/SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac` with `SPEAKER-CHAPTER.trans.txt`
(`ID TEXT` a line) and `SPEAKERS.TXT` (`ID |SEX|SUBSET|MINUTES|NAME`, `;` comments); of our own trees
also `LABELS.TSV` (a head, then `ID PACE PITCH ACCENT SOUND` with tabs). Must not know about encoders
or shards.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from extract.corpora.rows import Header, Piece, make_row, read_headers, say_left_out
from extract.corpora.texts import (
    TRANS,
    Transcript,
    decode,
    merge,
    read_lines,
    require_line_ends,
    split_lines,
)
from extract.corpora.walk import Names, Tree, require_utf8, tidy_id, unique_ids, walk
from omni.errors import OmniError
from omni.formats.manifest import LABELS, Manifest, Utterance, make_manifest, role_of
from omni.formats.records import Role


class Labels(NamedTuple):
    """How an utterance is spoken: the manifest's columns of these names."""

    pace: str
    pitch: str
    accent: str
    sound: str

    @property
    def is_sound_alone(self) -> bool:
        """Whether nobody speaks: that there is no transcript is no lack then."""
        return self.sound != "" and not (self.pace or self.pitch or self.accent)


NO_LABELS = Labels("", "", "", "")


@dataclass(frozen=True)
class PublishedSplit:
    """What the corpus's authors publish of a split (OpenSLR resources 12 and 31)."""

    utterances: int
    hours: float | None  # None where the authors give none
    md5: str  # of the tar.gz
    aliases: tuple[str, ...]  # other spellings in use
    resource: int = 12  # its number at OpenSLR


PUBLISHED = {
    "dev-clean": PublishedSplit(
        2703, 5.4, "42e2234ba48799c1f50f24a7926300a1", ("clean/validation", "validation.clean")
    ),
    "dev-other": PublishedSplit(
        2864, 5.3, "c8d0bcc9cca99d4f8b62fcc847357931", ("other/validation", "validation.other")
    ),
    "test-clean": PublishedSplit(2620, 5.4, "32fa31d27d2e1cad72775fee3f4849a9", ("clean/test",)),
    "test-other": PublishedSplit(2939, 5.1, "fb5a50374b501bb3bac4815ee91d3135", ("other/test",)),
    "train-clean-100": PublishedSplit(
        28539, 100.6, "2a93770f6d5c6c964bc36631d331a522", ("clean/train.100",)
    ),
    "train-clean-360": PublishedSplit(
        104014, 363.6, "c0e676e450a7ff2f54aeade5171606fa", ("clean/train.360",)
    ),
    "train-other-500": PublishedSplit(
        148688, 496.7, "d1a0fd59409feb2c614ce4d30c387708", ("other/train.500",)
    ),
    "dev-clean-2": PublishedSplit(1089, None, "6d7ab67ac6a1d2c993d050e16d61080d", (), 31),
    "train-clean-5": PublishedSplit(1519, None, "5df7d4e78065366204ca6845bb08f490", (), 31),
}


def canonical_split(name: str) -> str:
    """LibriSpeech's own name of a split in any spelling; other names come back as they are.

    `train.clean.100`, `train_clean_100`, `clean/train.100` and `Train-Clean-100` are one split.
    """
    for canonical, published in PUBLISHED.items():
        if name in published.aliases:
            return canonical
    dashed = name.lower().replace(".", "-").replace("_", "-")
    return dashed if dashed in PUBLISHED else name


def librispeech_manifest(root: Path, split: str, role: Role | None = None) -> Manifest:
    """Read an unpacked tree.

    Args:
        root: the folder that holds `SPLIT/`, or the folder above it (that of `LibriSpeech/`).
        split: its name in any spelling.
        role: "train" or "eval"; None: by the split's name.

    Returns:
        A row for each line of a transcript and each audio file; where one lacks the other the row's
        `problem` says so.

    Raises:
        OmniError: no such split, or nothing in it; two files of one id; a name that does not tell
            the role.
    """
    split = canonical_split(split)
    role = role or role_of(split)
    require_utf8(root)
    base = _base(root, split)
    speakers = read_speakers(base / "SPEAKERS.TXT")
    labels = read_labels(base / "LABELS.TSV")
    tree = walk(base / split)
    audio = unique_ids((path.stem, path) for path in tree.audio)
    texts = _read_transcripts(tree, audio)
    headers = read_headers(audio.values())
    rows = []
    for utterance_id in sorted(texts.keys() | audio.keys()):
        speaker, _, rest = utterance_id.partition("-")
        path, its = audio.get(utterance_id), labels.get(utterance_id, NO_LABELS)
        piece = Piece(
            utterance_id, path, texts.get(utterance_id),
            needs_text=not its.is_sound_alone, speaker=speaker, chapter=rest.partition("-")[0], sex=speakers.get(speaker, ""),
        )  # fmt: skip
        row = make_row(piece, base, headers[path] if path else Header())
        rows.append(_labelled(row, its))
    say_left_out(rows, [(len(tree.closed), "folders can't be entered")])
    return make_manifest(split, base, rows, role)


def read_speakers(path: Path) -> dict[str, str]:
    """Sex ("F" or "M") of each speaker id; empty without the file."""
    if not path.is_file():
        return {}
    data = _bytes(path)
    # The names in it may be in Latin-1; nothing but ASCII is needed.
    require_line_ends(data, path)
    lines = split_lines(data.decode("utf-8-sig", "replace"))
    rows = (line.split("|") for line in lines if not line.startswith(";"))
    return {row[0].strip(): row[1].strip().upper() for row in rows if len(row) > 1}


def read_labels(path: Path) -> dict[str, Labels]:
    """How each utterance is spoken, by its id; empty without the file.

    Raises:
        OmniError: it can't be read, or is no such table; names the line.
    """
    if not path.is_file():
        return {}
    head, *lines = split_lines(decode(_bytes(path), str(path)).rstrip("\r\n"))
    if head.split("\t") != ["id", *LABELS]:
        raise OmniError("its head is another", str(path), f"id {' '.join(LABELS)}, tabs between")
    found = {}
    for number, line in enumerate(lines, start=2):
        utterance_id, *values = line.split("\t")
        if len(values) != len(LABELS) or utterance_id in found:
            what = f"line {number} has {len(values)} labels, or is of an utterance that had some"
            raise OmniError(what, str(path), f"{len(LABELS)} of each, tabs between")
        found[utterance_id] = Labels(*values)
    return found


def compare_with_published(split: str, utterances: int, seconds: float) -> str:
    """One line beside the published counts; empty for a split nobody has published."""
    published = PUBLISHED.get(split)
    if published is None:
        return ""
    hours = seconds / 3600
    there = f"{published.utterances}" + (f", {published.hours} h" if published.hours else "")
    line = f"{split}: {utterances} utterances, {hours:.1f} h; published {there}"
    same = utterances == published.utterances and (
        published.hours is None or abs(hours - published.hours) < 0.1
    )
    return line if same else f"warning: {line}: not the whole split"


def _labelled(row: Utterance, its: Labels) -> Utterance:
    return replace(row, pace=its.pace, pitch=its.pitch, accent=its.accent, sound=its.sound)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OmniError(f"can't be read ({error.strerror})", str(path)) from error


def _base(root: Path, split: str) -> Path:
    for base in (root, root / "LibriSpeech"):
        if (base / split).is_dir():
            return base
    if not root.is_dir():
        raise OmniError("no such folder", f"--root {root}")
    there = sorted(
        p.name
        for b in (root, root / "LibriSpeech")
        if b.is_dir()
        for p in b.iterdir()
        if p.is_dir()
    )
    raise OmniError(
        f"no split {split} there", f"--root {root}", f"found {', '.join(there[:12]) or 'nothing'}"
    )


def _read_transcripts(tree: Tree, audio: Iterable[str]) -> dict[str, Transcript]:
    names = Names(audio)
    texts: dict[str, Transcript] = {}
    for path in tree.texts:
        if path.name.lower().endswith(TRANS):
            for name, transcript in read_lines(path):
                merge(texts, names.find(name) or tidy_id(name), transcript)
    return texts
