"""LibriSpeech's layout on disk to a manifest.

`LibriSpeech/SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac` with `SPEAKER-CHAPTER.trans.txt`
(`ID TEXT` a line) and `SPEAKERS.TXT` (`ID |SEX|SUBSET|MINUTES|NAME`, `;` comments). Must not know
about encoders or shards.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from omni.audio import audio_info
from omni.errors import OmniError
from omni.formats.manifest import (
    Manifest,
    Problem,
    Utterance,
    make_manifest,
    normalize_text,
    role_of,
)

AUDIO_SUFFIXES = (".flac", ".opus", ".wav")


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


def librispeech_manifest(root: Path, split: str, role: str | None = None) -> Manifest:
    """Read an unpacked tree.

    Args:
        root: the folder that holds `SPLIT/`, or the folder above it (that of `LibriSpeech/`).
        split: its name in any spelling.
        role: "train" or "eval"; None: by the split's name.

    Returns:
        A row for each line of a transcript and each audio file; where one lacks the other the row's
        `problem` says so.

    Raises:
        OmniError: no such split, or nothing in it; a name that does not tell the role.
    """
    split = canonical_split(split)
    role = role or role_of(split)
    base = _base(root, split)
    speakers = read_speakers(base / "SPEAKERS.TXT")
    texts = _read_transcripts(base / split)
    audio = {
        path.stem: path
        for path in sorted((base / split).rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
    }
    ids = sorted(texts.keys() | audio.keys())
    with ThreadPoolExecutor(8) as pool:  # headers only, but a network disk answers slowly
        rows = pool.map(lambda i: _row(i, base, audio.get(i), texts.get(i), speakers), ids)
        return make_manifest(split, base, rows, role)


def read_speakers(path: Path) -> dict[str, str]:
    """Sex ("F" or "M") of each speaker id; empty without the file."""
    if not path.is_file():
        return {}
    rows = (line.split("|") for line in path.read_text().splitlines() if not line.startswith(";"))
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


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


def _read_transcripts(folder: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                utterance_id, _, text = line.strip().partition(" ")
                texts[utterance_id] = text.strip()
    return texts


def _row(
    utterance_id: str, base: Path, path: Path | None, text: str | None, speakers: dict[str, str]
) -> Utterance:
    speaker, _, rest = utterance_id.partition("-")
    problem, note, n_samples, rate = Problem.NONE, "", 0, 0
    if path is None:
        problem, note = Problem.NO_AUDIO, "transcript without audio"
    elif not text:
        problem, note = Problem.NO_TEXT, "audio without transcript"
    else:
        try:
            n_samples, rate = audio_info(path)
        except OmniError as error:  # kept as a row: extraction records the failure
            problem, note = Problem.UNREADABLE, error.what
    return Utterance(
        id=utterance_id,
        speaker=speaker,
        chapter=rest.partition("-")[0],
        sex=speakers.get(speaker, ""),
        audio=path.relative_to(base).as_posix() if path else "",
        n_samples=n_samples,
        sample_rate=rate,
        text=text or "",
        text_norm=normalize_text(text or ""),
        problem=problem,
        note=note,
    )
