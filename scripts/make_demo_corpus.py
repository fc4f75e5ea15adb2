"""Regenerates `manifests/demo/`: the small corpus of synthetic speech that the demo hears.

    python scripts/make_demo_corpus.py                # needs flite and espeak-ng
    python scripts/make_demo_corpus.py --voices natural --out DIR    # fetch_voices.py first

The sentences come from a closed grammar of 56 words, so that 400 clips are enough to learn it, and
no held-out sentence is ever trained on. The files are laid out and named as LibriSpeech's, so that
one reader serves both. Must not know how a corpus is read or encoded.
"""

import argparse
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from libri_tree import Clip, remove_unlisted, write_audio, write_tables, write_transcripts
from synthesis import Voice

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


def plan() -> list[Clip]:
    """Every utterance of the three splits, in order; a pure function of this file."""
    rng = np.random.default_rng(SEED)
    n_train = sum(count for _, _, count in KNOWN)
    lines = sentences(rng)
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
        Clip("demo-heldout-voice", speaker, speaker * 10, i, voice, text, text)
        for i, text in enumerate(unheard)
    ]
    return clips


def is_for_mini(sentence: str) -> bool:
    """Whether AudioBench-mini alone may say it: a sixteenth of the grammar, by a hash, so that neither
    need know what the other says."""
    return zlib.crc32(sentence.encode()) % 16 == 0


def natural_plan() -> list[Clip]:
    """The corpus with natural voices: the same grammar, other sentences, more speakers."""
    from demo_cast import SEED, plan  # whose voices are fetched for whom this concerns

    return plan(sentences(np.random.default_rng(SEED), lambda text: not is_for_mini(text)))


def make(clips: Sequence[Clip], root: Path, again: bool = True) -> None:
    """Write the clips and their transcripts below `root`; files that would not change stay as they are.

    Args:
        again: speak those that are there too; a killed run goes on without.
    """
    remove_unlisted(clips, root, {clip.split for clip in clips})
    write_transcripts(clips, root)
    missing = [clip for clip in clips if again or not (root / clip.path).is_file()]
    for done, clip in enumerate(missing, start=1):
        write_audio(clip, root)
        if done % 50 == 0 or done == len(missing):
            print(f"{done}/{len(missing)} clips", flush=True)
    write_tables(clips, root)


def main() -> int:
    """Regenerate the whole corpus."""
    parser = argparse.ArgumentParser(
        description="Regenerate the demo corpus.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="the LibriSpeech folder to write")
    parser.add_argument("--voices", default="robots", choices=["robots", "natural"],
        help="flite's and espeak-ng's, or those of demo_cast.py")  # fmt: skip
    parser.add_argument(
        "--missing", action="store_true", help="speak only clips that are not there"
    )
    args = parser.parse_args()
    clips = natural_plan() if args.voices == "natural" else plan()
    make(clips, args.out, again=not args.missing)
    return 0


def sentences(
    rng: np.random.Generator, keep: Callable[[str], bool] = lambda sentence: True
) -> Iterator[str]:
    """Sentences of the grammar that are to be kept, never one twice; of those dealt, each word of a
    slot is used equally often.

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
        if sentence not in seen and keep(sentence):
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
        clips.append(
            Clip(split, speaker, speaker * 10 + chapter, counts[speaker], voice, text, text)
        )
        counts[speaker] += 1
    return sorted(clips, key=lambda clip: clip.id)


def _cycle(items: Sequence[int], n: int) -> list[int]:
    """The first n of the items repeated."""
    return [items[i % len(items)] for i in range(n)]


if __name__ == "__main__":
    sys.exit(main())
