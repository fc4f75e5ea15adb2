"""Clips and transcripts on disk as LibriSpeech lays them out, for the scripts that build a corpus.

    ROOT/SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.opus
    ROOT/SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt      ID UPPER CASE TEXT
    ROOT/SPEAKERS.TXT                                         speaker | sex | split | minutes | name
    ROOT/LABELS.TSV                                           how each utterance is spoken, where known

Must not know what is said, nor which corpus it is.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile as sf
from synthesis import Voice, Wave, speak, write_clip

if TYPE_CHECKING:
    from sounds import Sound

LABELS = ("pace", "pitch", "accent", "sound")  # as extract.corpora.librispeech reads them


@dataclass(frozen=True)
class Clip:
    """One utterance to be made.

    Attributes:
        split, speaker, chapter, number: its place in the tree.
        voice: who says it, and how this time; None: nobody speaks.
        spoken: what the engine is given.
        text: the transcript, lower case.
        pace: "slow", "normal", "fast", or "" where nobody set it.
        pitch: "low", "normal", "high", or "".
        sound: what is heard behind the voice, or instead of it.
        snr: decibels that the voice is above the sound.
        seconds: of a sound alone.
    """

    split: str
    speaker: int
    chapter: int
    number: int
    voice: Voice | None
    spoken: str
    text: str
    pace: str = ""
    pitch: str = ""
    sound: "Sound | None" = None
    snr: float = 0.0
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """LibriSpeech's utterance id."""
        return f"{self.speaker}-{self.chapter}-{self.number:04d}"

    @property
    def path(self) -> Path:
        """The clip's file, relative to ROOT."""
        return Path(self.split, str(self.speaker), str(self.chapter), f"{self.id}.opus")

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of `LABELS`."""
        accent = self.voice.accent if self.voice else ""
        return self.pace, self.pitch, accent, self.sound.kind if self.sound else ""


def write_audio(clip: Clip, root: Path) -> None:
    """Speak the clip and write its file; one that would not change stays as it is."""
    path = root / clip.path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, hear(clip))


def hear(clip: Clip) -> Wave:
    """(n,) float32 at 16 kHz: the voice, the sound, or the one before the other."""
    if clip.sound is None:
        assert clip.voice is not None, f"{clip.id}: neither a voice nor a sound"
        return speak(clip.voice, clip.spoken)
    import sounds  # the soundfont's player is fetched for whom this concerns

    if clip.voice is None:
        return sounds.alone(clip.sound, clip.seconds)
    return sounds.behind(speak(clip.voice, clip.spoken), clip.sound, clip.snr)


def write_transcripts(clips: Iterable[Clip], root: Path) -> None:
    """Write what is to be said, before or after it is spoken: a plan that is begun stands there."""
    transcripts: dict[Path, list[str]] = {}
    for clip in clips:
        transcript = (root / clip.path).with_name(f"{clip.speaker}-{clip.chapter}.trans.txt")
        lines = transcripts.setdefault(transcript, [])
        if clip.text:
            lines.append(f"{clip.id} {clip.text.upper()}\n")
    for transcript, rows in transcripts.items():
        if rows:
            transcript.parent.mkdir(parents=True, exist_ok=True)
            transcript.write_text("".join(rows), encoding="utf-8")
        else:
            transcript.unlink(missing_ok=True)


def write_tables(clips: Iterable[Clip], root: Path) -> float:
    """Write the transcripts, SPEAKERS.TXT and, where anything is labelled, LABELS.TSV of clips whose
    files exist.

    A speaker is listed once, under the first split he is met in, with the minutes of all of his
    clips, named by engine and voice.

    Returns:
        Hours of audio.
    """
    clips = list(clips)
    write_transcripts(clips, root)
    speakers: dict[int, Clip] = {}
    minutes: dict[int, float] = {}
    for clip in clips:
        path = root / clip.path
        speakers.setdefault(clip.speaker, clip)
        minutes[clip.speaker] = minutes.get(clip.speaker, 0.0) + sf.info(path).duration / 60

    table = ["; Every speaker is a speech synthesiser: engine and voice stand for a name.\n"]
    table.append(";ID  |SEX| SUBSET             |MINUTES| NAME\n")
    for speaker, clip in sorted(speakers.items()):
        if clip.voice is None:
            continue
        name = f"{clip.voice.engine} {clip.voice.name}"
        row = f"{speaker} | {clip.voice.sex} | {clip.split:18} | {minutes[speaker]:5.2f} | {name}\n"
        table.append(row)
    (root / "SPEAKERS.TXT").write_text("".join(table), encoding="utf-8")
    _write_labels(clips, root / "LABELS.TSV")
    return sum(minutes.values()) / 60


def _write_labels(clips: Collection[Clip], path: Path) -> None:
    """A line `ID PACE PITCH ACCENT SOUND` with tabs for each clip, "" for what is not known."""
    if any(any(clip.labels) for clip in clips):
        rows = sorted((clip.id, *clip.labels) for clip in clips)
        lines = ["\t".join(row) for row in [("id", *LABELS), *rows]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def remove_unlisted(clips: Collection[Clip], root: Path, splits: Iterable[str]) -> int:
    """Take away clips and transcripts of another plan, so that a split holds what its list says, and
    each clip its own text: where another plan says something else, the clip is made anew.

    To be called before clips are made: a clip whose transcript is not there yet is kept.

    Args:
        clips: all that there is to be.
        splits: those to look at, one without a clip among them; nothing else in `root` is touched.

    Returns:
        Number of clips removed.
    """
    audio = {root / clip.path for clip in clips}
    texts = {
        path.with_name(f"{path.parent.parent.name}-{path.parent.name}.trans.txt") for path in audio
    }
    listed = _listed(texts)
    audio -= {root / c.path for c in clips if listed.get(c.id, c.text.upper()) != c.text.upper()}
    removed = 0
    for split in splits:
        # The deepest first: a folder is empty once what it held is gone.
        for path in sorted([*(root / split).rglob("*"), root / split], reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.suffix == ".opus" and path not in audio:
                path.unlink()
                removed += 1
            elif path.name.endswith(".trans.txt") and path not in texts:
                path.unlink()
    return removed


def _listed(transcripts: Iterable[Path]) -> dict[str, str]:
    """Upper-case text by id, of those transcripts that are there."""
    lines = (
        line.partition(" ")
        for path in transcripts
        if path.is_file()
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    return {key: text for key, _, text in lines}
