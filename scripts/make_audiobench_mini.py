"""Makes `manifests/audiobench-mini/`: 200 clips and 200 questions with four options about them.

    python scripts/fetch_voices.py             # once: Kokoro's voices and the soundfont
    python scripts/make_audiobench_mini.py     # the clips that are missing, then the table

80 questions on words, 80 on the voice, 40 on what sounds behind a voice or instead of one. The
sentences are of the demo's grammar, and none of them is in the demo corpus; the voices and sounds are
in no other corpus of the project. Each sentence of a question on voice or sound is spoken in every
class, by the same man and woman, so that words can't tell. The same samples and the same table every
time. Must not know how a corpus is read or encoded.
"""

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from libri_tree import Clip, remove_unlisted, write_audio, write_tables, write_transcripts
from make_demo_corpus import is_for_mini, sentences
from sounds import APPLAUSE, PHONE, Sound
from synthesis import Voice

FOLDER = Path(__file__).resolve().parent.parent / "manifests" / "audiobench-mini"
SPLIT, SEED = "audiobench-mini", 20_261_127
PACES = {"slow": 1.35, "normal": 1.0, "fast": 0.74}  # of the voice's own speaking time
# Median fundamental in Hz of a voice that is high or low for its sex; a normal one keeps its own.
PITCHES = {("M", "low"): 92.0, ("M", "high"): 135.0, ("F", "low"): 155.0, ("F", "high"): 220.0}
# On words: so many clips, a question each. Fours, so that each letter is the key as often.
WORDS = {
    "content/heard-which": 8,
    "content/after": 12,
    "content/before": 12,
    "content/first": 8,
    "content/last": 8,
    "content/sentence": 8,
    "content/number": 8,
    "content/colour": 8,
    "content/place": 8,
}
# On the voice: so many sentences, each in four classes.
VOICE = {"voice/sex-pace": 7, "voice/sex-pitch": 7, "voice/sex-accent": 6}
BEHIND = ("hiss", "hum", "telephone", "instrument", "applause", "silence")
ALONE = ("telephone", "instrument", "applause", "silence")
INSTRUMENTS = (0, 40, 73, 56)  # piano, violin, flute, trumpet: none of them is in the demo corpus
SNR = (5.0, 10.0)  # decibels of the voice above what is behind it
ALONE_SECONDS = (2.5, 4.0)
NOBODY = 9599
# Voices of Kokoro, and blends of them, that are in no other corpus of the project.
CAST: dict[int, Voice] = {
    9501: Voice("kokoro", "af_nova", "F", accent="US"),
    9502: Voice("kokoro", "af_river", "F", accent="US"),
    9503: Voice("kokoro", "af_nova+af_river", "F", accent="US"),
    9504: Voice("kokoro", "am_liam", "M", accent="US"),
    9505: Voice("kokoro", "am_puck", "M", accent="US"),
    9506: Voice("kokoro", "am_liam+am_puck", "M", accent="US"),
    9507: Voice("kokoro", "bf_lily", "F", accent="GB"),
    9508: Voice("kokoro", "bf_lily:2+af_river:1", "F", accent="GB"),
    9509: Voice("kokoro", "bm_lewis", "M", accent="GB"),
    9510: Voice("kokoro", "bm_lewis:2+am_liam:1", "M", accent="GB"),
}


@dataclass(frozen=True)
class Asked:
    """A clip and what is asked about it. answer: the class; "" where the words answer. options: the
    classes to choose from, in no order."""

    clip: Clip
    kind: str
    answer: str = ""
    options: tuple[str, ...] = ()


def plan() -> list[Asked]:
    """Every clip with its question, in order of id; a pure function of this file."""
    rng = np.random.default_rng(SEED)
    lines = sentences(rng, is_for_mini)
    number: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
    asked = [
        *_on_words(lines, rng),
        *_on_voices(lines, rng),
        *_on_sounds(lines, rng),
        *_on_nothing(rng),
    ]
    placed = [
        replace(one, clip=replace(one.clip, number=next(number[one.clip.chapter]))) for one in asked
    ]
    return sorted(placed, key=lambda one: one.clip.id)


def main() -> int:
    """Make what is missing."""
    parser = argparse.ArgumentParser(
        description="Make AudioBench-mini: 200 clips and their questions.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to hold LibriSpeech/")
    parser.add_argument("--again", action="store_true",
        help="speak every clip again; a file that holds the same samples stays as it is")  # fmt: skip
    args = parser.parse_args()
    asked = plan()
    clips = [one.clip for one in asked]
    root = args.out / "LibriSpeech"
    remove_unlisted(clips, root, [SPLIT])
    write_transcripts(clips, root)
    missing = [clip for clip in clips if args.again or not (root / clip.path).is_file()]
    for done, clip in enumerate(missing, start=1):
        write_audio(clip, root)
        if done % 20 == 0 or done == len(missing):
            print(f"{done}/{len(missing)} clips", flush=True)
    hours = write_tables(clips, root)
    print(f"{len(clips)} clips, {60 * hours:.1f} minutes in {root}")

    from mini_questions import write_questions  # the stages that it needs load slowly

    print("\n".join(write_questions(asked, args.out / "mini.parquet")))
    return 0


def _on_words(lines: Iterator[str], rng: np.random.Generator) -> Iterator[Asked]:
    kinds = [kind for kind, n in WORDS.items() for _ in range(n)]
    speakers = list(CAST)
    for i, kind in enumerate(kinds):
        yield Asked(_spoken(0, speakers[i % len(speakers)], next(lines), rng), kind)


def _on_voices(lines: Iterator[str], rng: np.random.Generator) -> Iterator[Asked]:
    """Each sentence in four classes: a man and a woman, each in two ways."""
    for kind, n in VOICE.items():
        for i in range(n):
            text, accent = next(lines), ("US", "GB")[i % 2]
            for sex, way in itertools.product("MF", _WAYS[kind]):
                accent = _ACCENTS.get(way, accent)
                mine = [k for k, v in CAST.items() if (v.sex, v.accent) == (sex, accent)]
                pace = way if way in PACES else "normal"
                pitch = way if (sex, way) in PITCHES else "normal"
                clip = _spoken(1, mine[i // 2 % len(mine)], text, rng, pace, pitch)
                yield Asked(clip, kind, f"{sex} {way}", _classes(kind))


def _on_sounds(lines: Iterator[str], rng: np.random.Generator) -> Iterator[Asked]:
    """Each sentence with every sound behind it. Six sets of four options, each asked four times, once
    with each of its members as the key: what the options are does not tell which is right."""
    speakers, instruments = list(CAST), itertools.cycle(INSTRUMENTS)
    for i in range(4):
        text = next(lines)
        for at, kind in enumerate(BEHIND):
            first = (at - i) % len(BEHIND)
            options = tuple(BEHIND[(first + step) % len(BEHIND)] for step in range(4))
            speaker = speakers[(3 * i + 7 * at) % len(speakers)]
            clip = _spoken(2, speaker, text, rng)
            snr = round(float(rng.uniform(*SNR)), 1)
            sound = _sound(kind, 100 + 10 * i + at, instruments)
            yield Asked(replace(clip, sound=sound, snr=snr), "sound/behind", kind, options)


def _on_nothing(rng: np.random.Generator) -> Iterator[Asked]:
    """Sounds and nobody who speaks."""
    instruments = itertools.cycle(INSTRUMENTS)
    for i, kind in enumerate(ALONE * 4):
        sound, seconds = (
            _sound(kind, 200 + i, instruments),
            round(float(rng.uniform(*ALONE_SECONDS)), 2),
        )
        clip = Clip(SPLIT, NOBODY, NOBODY * 10 + 2, 0, None, "", "", sound=sound, seconds=seconds)
        yield Asked(clip, "sound/alone", kind, ALONE)


_WAYS = {
    "voice/sex-pace": ("fast", "slow"),
    "voice/sex-pitch": ("high", "low"),
    "voice/sex-accent": ("American", "British"),
}
_ACCENTS = {"American": "US", "British": "GB"}


def _classes(kind: str) -> tuple[str, ...]:
    return tuple(f"{sex} {way}" for sex, way in itertools.product("MF", _WAYS[kind]))


def _spoken(
    part: int,
    speaker: int,
    text: str,
    rng: np.random.Generator,
    pace: str = "normal",
    pitch: str = "normal",
) -> Clip:
    """A clip of part 0 (words), 1 (voice) or 2 (sound), a chapter of its speaker; its number is given
    later."""
    warp = round(1 + rng.uniform(-0.01, 0.01), 2)  # no two days a voice is quite the same
    tempo = round(PACES[pace] * warp * rng.uniform(0.97, 1.03), 3)
    voice = CAST[speaker]
    hertz = PITCHES.get((voice.sex, pitch), 0.0)
    voice = replace(voice, warp=warp, tempo=tempo, hertz=hertz)
    chapter = speaker * 10 + part
    return Clip(SPLIT, speaker, chapter, 0, voice, text, text, pace=pace, pitch=pitch)


def _sound(kind: str, seed: int, instruments: Iterator[int]) -> Sound:
    presets = {"telephone": PHONE, "applause": APPLAUSE}
    return Sound(kind, seed, next(instruments) if kind == "instrument" else presets.get(kind, -1))


if __name__ == "__main__":
    sys.exit(main())
