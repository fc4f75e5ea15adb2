"""Regenerates `manifests/demo/`: the small corpus of synthetic speech that the demo hears.

    python scripts/fetch_voices.py
    python scripts/make_demo_corpus.py                # needs flite and espeak-ng, too

The sentences come from a closed grammar of 56 words, so that 400 clips are enough to learn it, and
no held-out sentence is ever trained on. The files are laid out and named as LibriSpeech's, so that
one reader serves both. Who speaks, and how: demo_cast.py. Must not know how a corpus is read or encoded.
"""

import argparse
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from libri_tree import Clip, remove_unlisted, write_audio, write_tables, write_transcripts

ROOT = Path(__file__).resolve().parent.parent / "manifests" / "demo" / "LibriSpeech"

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


def is_for_mini(sentence: str) -> bool:
    """Whether AudioBench-mini alone may say it: a sixteenth of the grammar, by a hash, so that neither
    need know what the other says."""
    return zlib.crc32(sentence.encode()) % 16 == 0


def plan() -> list[Clip]:
    """Every utterance of the three splits, in order; a pure function of this file and of demo_cast.py."""
    import demo_cast  # here: who wants the grammar alone need not have the voices

    return demo_cast.plan(
        sentences(np.random.default_rng(demo_cast.SEED), lambda text: not is_for_mini(text))
    )


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
    parser.add_argument(
        "--missing", action="store_true", help="speak only clips that are not there"
    )
    args = parser.parse_args()
    make(plan(), args.out, again=not args.missing)
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


if __name__ == "__main__":
    sys.exit(main())
