"""Hours of open-vocabulary synthetic speech, for a projector that is to hear more than a grammar.

    python scripts/make_open_corpus.py --out corpora/open --hours 3

Sentences of 4 to 16 words from the King James Bible and five Austen novels (scripts/public_text.py),
spoken by twelve voices of flite and espeak-ng, laid out as LibriSpeech in three splits:

    train-open        sentences of their own, the twelve voices
    dev-open          other sentences, the same voices
    test-open-voice   other sentences again, flite's awb: a voice never trained on

A killed run goes on where it was; more hours keep the clips of fewer, fewer hours remove the others'
clips, and a clip that another --dev or --test gives another sentence is spoken anew: the folder holds
what its transcripts list. Must not know how a corpus is read or encoded.
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from libri_tree import Clip, remove_unlisted, write_audio, write_tables, write_transcripts
from public_text import bible_verses, normalise, novel_paragraphs, sentences
from synthesis import Voice

SPLITS = ("train-open", "dev-open", "test-open-voice")
SEED = 20_261_124
SHORTEST, LONGEST = 4, 16  # words
SECONDS_A_LETTER = 0.065  # measured over all voices; only turns --hours into a number of clips
CHAPTER_CLIPS = 200

# (speaker id, voice, share of the clips). flite's recorded voices count for more than formants.
KNOWN: tuple[tuple[int, Voice, int], ...] = (
    (8001, Voice("flite", "kal16", "M"), 3),
    (8002, Voice("flite", "rms", "M", tempo=0.92), 4),
    (8003, Voice("flite", "slt", "F"), 4),
    (8004, Voice("espeak-ng", "en-us", "M", tempo=1.05), 1),
    (8005, Voice("espeak-ng", "en-us+f3", "F", pitch=55), 1),
    (8006, Voice("espeak-ng", "en-us+m7", "M"), 1),
    (8007, Voice("espeak-ng", "en-us+f1", "F", tempo=1.05), 1),
    (8008, Voice("espeak-ng", "en-gb", "M", tempo=1.05, pitch=40), 1),
    (8009, Voice("espeak-ng", "en-gb+m3", "M"), 1),
    (8010, Voice("espeak-ng", "en-gb+f2", "F"), 1),
    (8011, Voice("espeak-ng", "en-gb-scotland", "M", pitch=45), 1),
    (8012, Voice("espeak-ng", "en-gb-x-rp", "M", pitch=35), 1),
)
UNHEARD: tuple[int, Voice] = (8101, Voice("flite", "awb", "M"))
ABBREVIATIONS = {"Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor", "St.": "Saint", "&c.": ""}


def main() -> int:
    """Make the corpus below --out."""
    parser = argparse.ArgumentParser(
        description="Synthesise an open-vocabulary corpus with flite and espeak-ng.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to hold LibriSpeech/")
    parser.add_argument("--hours", type=float, default=3.0, help="of train-open, about")
    parser.add_argument("--dev", type=int, default=200, help="clips of dev-open")
    parser.add_argument("--test", type=int, default=200, help="clips of test-open-voice")
    parser.add_argument("--processes", type=int, default=2, help="synthesisers at a time")
    args = parser.parse_args()

    root = args.out / "LibriSpeech"
    clips = plan(usable_sentences(), args.hours, args.dev, args.test)
    if removed := remove_unlisted(clips, root, SPLITS):
        print(f"{removed:,} clips of another plan removed")
    write_transcripts(clips, root)
    missing = [clip for clip in clips if not (root / clip.path).exists()]
    print(f"{len(clips):,} clips, {len(clips) - len(missing):,} of them already there")
    began = time.monotonic()
    with ProcessPoolExecutor(args.processes, initializer=partial(torch.set_num_threads, 1)) as pool:
        made = pool.map(partial(write_audio, root=root), missing, chunksize=8)
        for _ in tqdm(made, total=len(missing), unit="clip", disable=not missing):
            pass
    hours = write_tables(clips, root)
    counts = Counter(clip.split for clip in clips)
    split_counts = ", ".join(f"{split} {n:,}" for split, n in counts.items())
    print(f"{hours:.2f} h in {root} ({split_counts}); {time.monotonic() - began:.0f} s")
    return 0


def usable_sentences() -> list[tuple[str, str]]:
    """(spoken, transcript) of every fit sentence, each transcript once, in the books' order.

    Fit: 4 to 16 words, no digits or headings. Commas are spoken as pauses, other marks are not.
    """
    paragraphs = [_expand(p) for p in bible_verses() + novel_paragraphs()]
    found: dict[str, str] = {}
    for sentence in sentences(paragraphs):
        text = normalise(sentence)
        fit = SHORTEST <= len(text.split()) <= LONGEST
        if fit and sentence.isascii() and not re.search(r"\d|^[^a-z]+$|\*", sentence):
            spoken = re.sub(r"[^a-z', ]+", " ", sentence.lower())
            found.setdefault(text, " ".join(spoken.split()).strip(" ,'"))
    return [(spoken, text) for text, spoken in found.items()]


def plan(lines: Sequence[tuple[str, str]], hours: float, n_dev: int, n_test: int) -> list[Clip]:
    """Every utterance of the three splits; a pure function of its arguments.

    The held-out sentences are dealt first, so that more hours never train on them. They don't
    depend on --hours, and a longer training split starts with a shorter one.
    """
    order = np.random.default_rng(SEED).permutation(len(lines))
    deal = iter(lines[i] for i in order)
    dev = [next(deal) for _ in range(n_dev)]
    test = [next(deal) for _ in range(n_test)]
    train, letters = [], hours * 3600 / SECONDS_A_LETTER
    while letters > 0:
        line = next(deal, None)
        if line is None:
            break
        train.append(line)
        letters -= len(line[1])
    cast = [(speaker, voice) for speaker, voice, share in KNOWN for _ in range(share)]
    return [
        *_split("train-open", 1, cast, train, varied=True),
        *_split("dev-open", 2, cast, dev, varied=True),
        *_split("test-open-voice", 3, [UNHEARD], test, varied=False),
    ]


def _split(
    split: str,
    series: int,
    cast: Sequence[tuple[int, Voice]],
    lines: Sequence[tuple[str, str]],
    varied: bool,
) -> list[Clip]:
    """Clip i is a function of (split, i) alone: its speaker, his tempo and pitch that day."""
    counts: Counter[int] = Counter()
    clips = []
    for i, (spoken, text) in enumerate(lines):
        rng = np.random.default_rng([SEED, series, i])
        speaker, voice = cast[rng.integers(len(cast))]
        chapter, number = divmod(counts[speaker], CHAPTER_CLIPS)
        counts[speaker] += 1
        voice = voice.varied(rng) if varied else voice
        place = speaker * 1000 + series * 100 + chapter
        clips.append(Clip(split, speaker, place, number, voice, spoken, text))
    return clips


def _expand(paragraph: str) -> str:
    """Abbreviations as they are spoken; their full stops would also end sentences."""
    for short, spoken in ABBREVIATIONS.items():
        paragraph = paragraph.replace(short, spoken)
    return paragraph


if __name__ == "__main__":
    sys.exit(main())
