"""Regenerates `manifests/demo/`: the small corpus of synthetic speech that the demo hears.

    python scripts/make_demo_corpus.py                # needs flite and espeak-ng

The sentences come from a closed grammar of 56 words, so that 400 clips are enough to learn it, and
no held-out sentence is ever trained on. The files are laid out and named as LibriSpeech's, so that
one reader serves both. Must not know how a corpus is read or encoded.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from synthesis import RATE, Voice, speak, write_clip

ROOT = Path(__file__).resolve().parent.parent / "manifests" / "demo" / "LibriSpeech"
SEED = 20_261_124

# One tuple a word of the sentence. Words in one slot differ in more than one sound, so that an
# error of recognition is an error of the projector and not a coin toss of the synthesiser.
GRAMMAR: tuple[tuple[str, ...], ...] = (
    ("set", "bring", "carry", "find", "hold", "wash", "move", "paint", "throw"),
    ("the",),
    ("silver", "yellow", "purple", "orange", "green", "black", "white", "crimson"),
    (
        "book",
        "ladder",
        "basket",
        "candle",
        "hammer",
        "window",
        "mirror",
        "blanket",
        "flower",
        "shovel",
    ),
    ("by", "under", "behind", "inside", "near", "across"),
    ("the",),
    ("river", "kitchen", "garden", "station", "church", "bridge", "forest", "castle", "meadow"),
    ("at",),
    ("two", "three", "four", "six", "seven", "nine", "eleven", "twelve"),
    ("please", "today", "again", "now"),
)

# (speaker id, voice, clips to train on). Flite's awb is heard in the held-out split alone.
KNOWN: tuple[tuple[int, Voice, int], ...] = (
    (9001, Voice("flite", "kal16", "M"), 56),
    (9002, Voice("flite", "rms", "M", tempo=0.92), 72),
    (9003, Voice("flite", "slt", "F"), 72),
    (9004, Voice("espeak-ng", "en-us", "M", tempo=1.05), 40),
    (9005, Voice("espeak-ng", "en-us+f3", "F", pitch=55), 40),
    (9006, Voice("espeak-ng", "en-gb", "M", tempo=1.05, pitch=40), 40),
    (9007, Voice("espeak-ng", "en-gb+m3", "M"), 40),
    (9008, Voice("espeak-ng", "en-gb-scotland", "M", pitch=45), 40),
)
UNHEARD: tuple[int, Voice] = (9101, Voice("flite", "awb", "M"))
N_HELDOUT, N_HELDOUT_VOICE = 60, 40


@dataclass(frozen=True)
class Clip:
    """One utterance to be made: its split, its speaker, its place in a chapter, its words."""

    split: str
    speaker: int
    chapter: int
    number: int
    voice: Voice
    text: str

    @property
    def id(self) -> str:
        """LibriSpeech's utterance id."""
        return f"{self.speaker}-{self.chapter}-{self.number:04d}"

    @property
    def folder(self) -> Path:
        """Folder of the chapter, relative to `LibriSpeech/`."""
        return Path(self.split, str(self.speaker), str(self.chapter))


def plan() -> list[Clip]:
    """Every utterance of the three splits, in order; a pure function of this file."""
    rng = np.random.default_rng(SEED)
    n_train = sum(count for _, _, count in KNOWN)
    lines = _sentences(rng)
    train = [next(lines) for _ in range(n_train)]
    heldout = [next(lines) for _ in range(N_HELDOUT)]
    unheard = [next(lines) for _ in range(N_HELDOUT_VOICE)]

    owners = [speaker for speaker, _, count in KNOWN for _ in range(count)]
    rng.shuffle(owners)  # no voice owns a stretch of the balanced sentences
    voices = {speaker: voice for speaker, voice, _ in KNOWN}
    clips = [
        *_chapters("demo-train", 0, owners, train, voices, rng),
        *_chapters("demo-heldout", 1, _cycle(list(voices), N_HELDOUT), heldout, voices, rng),
    ]
    speaker, voice = UNHEARD
    clips += [
        Clip("demo-heldout-voice", speaker, speaker * 10, i, voice, text)
        for i, text in enumerate(unheard)
    ]
    return clips


def make(clips: Sequence[Clip], root: Path) -> None:
    """Write the clips and their transcripts below `root`; files that would not change stay as they are."""
    transcripts: dict[Path, list[str]] = {}
    seconds: dict[int, float] = {}
    for done, clip in enumerate(clips, start=1):
        folder = root / clip.folder
        folder.mkdir(parents=True, exist_ok=True)
        wave = speak(clip.voice, clip.text)
        write_clip(folder / f"{clip.id}.opus", wave)
        seconds[clip.speaker] = seconds.get(clip.speaker, 0.0) + len(wave) / RATE
        path = folder / f"{clip.speaker}-{clip.chapter}.trans.txt"
        transcripts.setdefault(path, []).append(f"{clip.id} {clip.text.upper()}\n")
        if done % 50 == 0 or done == len(clips):
            print(f"{done}/{len(clips)} clips", flush=True)
    for path, rows in transcripts.items():
        path.write_text("".join(rows), encoding="utf-8")
    (root / "SPEAKERS.TXT").write_text(_speakers(seconds), encoding="utf-8")


def main() -> int:
    """Regenerate the whole corpus."""
    parser = argparse.ArgumentParser(
        description="Regenerate the demo corpus with flite and espeak-ng.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="the LibriSpeech folder to write")
    args = parser.parse_args()
    make(plan(), args.out)
    return 0


def _sentences(rng: np.random.Generator) -> Iterator[str]:
    """Sentences of the grammar, never one twice; each word of a slot is used equally often.

    A slot deals its words like a deck of cards, shuffled anew each time it is empty.
    """
    decks: list[list[str]] = [[] for _ in GRAMMAR]
    seen: set[str] = set()
    while True:
        words = []
        for deck, slot in zip(decks, GRAMMAR, strict=True):
            if not deck:
                deck.extend(slot[i] for i in rng.permutation(len(slot)))
            words.append(deck.pop())
        sentence = " ".join(words)
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def _chapters(
    split: str,
    chapter: int,
    owners: Sequence[int],
    texts: Sequence[str],
    voices: dict[int, Voice],
    rng: np.random.Generator,
) -> list[Clip]:
    """One chapter a speaker, its utterances numbered from 0; sorted as LibriSpeech lists them."""
    counts = dict.fromkeys(voices, 0)
    clips = []
    for speaker, text in zip(owners, texts, strict=True):
        voice = voices[speaker].varied(rng)
        clips.append(Clip(split, speaker, speaker * 10 + chapter, counts[speaker], voice, text))
        counts[speaker] += 1
    return sorted(clips, key=lambda clip: clip.id)


def _cycle(items: Sequence[int], n: int) -> list[int]:
    """The first n of the items repeated."""
    return [items[i % len(items)] for i in range(n)]


def _speakers(seconds: dict[int, float]) -> str:
    """SPEAKERS.TXT in LibriSpeech's columns, of the speakers heard; the name is engine and voice."""
    rows = ["; Speakers of the demo corpus; both engines are speech synthesisers.\n"]
    rows.append(";ID  |SEX| SUBSET             |MINUTES| NAME\n")
    speakers = [(speaker, voice, "demo-train") for speaker, voice, _ in KNOWN]
    for speaker, voice, subset in [*speakers, (*UNHEARD, "demo-heldout-voice")]:
        if speaker not in seconds:
            continue
        minutes = seconds[speaker] / 60
        name = f"{voice.engine} {voice.name}"
        rows.append(f"{speaker} | {voice.sex} | {subset:18} | {minutes:5.2f} | {name}\n")
    return "".join(rows)


if __name__ == "__main__":
    sys.exit(main())
