"""The natural voices of the demo corpus, and who says which sentence how.

Kokoro's voices and blends of them, piper's joe, flite's recorded voices and a few of espeak-ng; three
paces, three pitches, a quarter of the clips with a sound behind. AudioBench-mini's voices, the reserved
ones and those of the unheard split are in none of the others. Must not know how a clip is written.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from libri_tree import Clip
from neural import parts
from sounds import Sound
from synthesis import Voice

SEED = 20_261_127
PACES = {"slow": 1.3, "normal": 1.0, "fast": 0.77}  # of the time that a normal voice takes
NORMAL_PACE = 3.35  # words a second of the grammar, edges of silence left out
# Median fundamental in Hz: from, to.
PITCHES = {
    "M": {"low": (84.0, 97.0), "normal": (106.0, 120.0), "high": (131.0, 148.0)},
    "F": {"low": (145.0, 164.0), "normal": (176.0, 195.0), "high": (208.0, 232.0)},
}
N_HELDOUT = 60
WITH_SOUND = 4  # every so many-th clip of a voice
SNR = (8.0, 20.0)  # decibels of the voice above what is behind it
SOUNDS = ("hiss", "hum", "babble", "telephone", "applause", "instrument")
# Guitar, organ, vibraphone, clarinet, horn, marimba, harp, strings: AudioBench-mini has others.
INSTRUMENTS = (24, 19, 11, 71, 60, 12, 46, 48)


# Words a second that Kokoro's voices say of the grammar when they are left alone; a blend's is between.
_OWN_PACE = {
    "af_alloy": 3.2, "af_aoede": 3.8, "af_jessica": 3.5, "af_kore": 3.5, "af_sky": 3.3, "af_sarah": 3.6,
    "am_adam": 3.5, "am_echo": 3.0, "am_eric": 3.7, "bf_alice": 3.1, "bf_isabella": 3.4,
    "bm_daniel": 3.2, "bm_fable": 3.3, "ef_dora": 3.6, "ff_siwis": 3.3, "if_sara": 3.7, "hf_alpha": 2.9,
    "pf_dora": 3.5, "em_alex": 3.4, "im_nicola": 3.6, "hm_omega": 2.8, "pm_alex": 3.5, "jm_kumo": 3.1,
}  # fmt: skip


def _kokoro(sex: str, accent: str, *names: str) -> list[Voice]:
    """Voices or blends, each at a tempo that makes its pace the normal one."""
    tempo = {
        name: sum(_OWN_PACE[part] * share for part, share in parts(name).items()) / NORMAL_PACE
        for name in names
    }
    return [Voice("kokoro", n, sex, tempo=round(tempo[n], 3), accent=accent) for n in names]


# (voices, clips to train on of each). Kokoro's voices of other languages speak American phonemes here.
# Whisper mishears joe, flite's slt and espeak-ng at times: they are few.
_GROUPS: tuple[tuple[list[Voice], int], ...] = (
    (_kokoro("F", "US", "af_alloy", "af_aoede", "af_jessica", "af_kore", "af_sky"), 11),
    (_kokoro("M", "US", "am_adam", "am_echo"), 11),
    (_kokoro("F", "GB", "bf_alice", "bf_alice:2+af_jessica:1", "bf_alice:2+af_kore:1"), 10),
    (_kokoro("M", "GB", "bm_daniel", "bm_daniel:2+am_adam:1", "bm_daniel:2+am_echo:1"), 10),
    (_kokoro("F", "US", "af_alloy+af_kore", "af_jessica+af_sky", "af_aoede+af_alloy"), 8),
    (_kokoro("M", "US", "am_adam+am_echo", "am_adam+im_nicola", "am_echo+pm_alex"), 8),
    (_kokoro("F", "US", "ef_dora", "ff_siwis", "if_sara", "hf_alpha"), 6),
    (_kokoro("M", "US", "em_alex", "im_nicola", "hm_omega", "pm_alex", "jm_kumo"), 6),
    ([Voice("piper", "joe", "M", tempo=1.07, accent="US")], 30),
    ([Voice("flite", "slt", "F", accent="US")], 30),
    ([Voice("flite", "rms", "M", tempo=0.92, accent="US")], 46),
    ([Voice("flite", "kal16", "M", tempo=1.1, accent="US")], 45),
    ([Voice("espeak-ng", "en-us+f3", "F", pitch=55, accent="US")], 5),
    ([Voice("espeak-ng", "en-gb", "M", tempo=0.9, pitch=40, accent="GB")], 5),
)


# By speaker id: his voice, and the clips of him to train on.
KNOWN: dict[int, tuple[Voice, int]] = {
    9001 + i: pair for i, pair in enumerate((voice, n) for voices, n in _GROUPS for voice in voices)
}
# Heard in the held-out split alone, with the clips of each. awb is a Scot: no label.
UNHEARD: dict[int, tuple[Voice, int]] = {
    9101: (_kokoro("F", "US", "af_sarah")[0], 8),
    9102: (_kokoro("M", "US", "am_eric")[0], 8),
    9103: (_kokoro("F", "GB", "bf_isabella")[0], 8),
    9104: (_kokoro("M", "GB", "bm_fable")[0], 8),
    9105: (Voice("flite", "awb", "M"), 8),
}


def plan(lines: Iterator[str]) -> list[Clip]:
    """Every utterance of the three splits, in order; a pure function of this file.

    Args:
        lines: sentences, none twice, each word as often as the others of its slot.
    """
    rng = np.random.default_rng(SEED)
    train = [speaker for speaker, (_, n) in KNOWN.items() for _ in range(n)]
    rng.shuffle(train)  # no voice owns a stretch of the balanced sentences
    known = [train[i] for i in rng.permutation(len(train))[:N_HELDOUT]]
    unheard = [speaker for speaker, (_, n) in UNHEARD.items() for _ in range(n)]
    voices = {speaker: voice for speaker, (voice, _) in {**KNOWN, **UNHEARD}.items()}
    return [
        *_split("demo-train", 0, train, lines, voices),
        *_split("demo-heldout", 1, known, lines, voices),
        *_split("demo-heldout-voice", 2, unheard, lines, voices),
    ]


def _split(
    split: str, chapter: int, owners: list[int], lines: Iterator[str], voices: Mapping[int, Voice]
) -> list[Clip]:
    """One chapter a speaker, its utterances numbered from 0; sorted as LibriSpeech lists them."""
    counts: Counter[int] = Counter()
    clips = []
    for speaker in owners:
        number, text = counts[speaker], next(lines)
        counts[speaker] += 1
        clip = Clip(split, speaker, speaker * 10 + chapter, number, voices[speaker], text, text)
        clips.append(_varied(clip, voices[speaker]))
    return sorted(clips, key=lambda clip: clip.id)


def _varied(clip: Clip, voice: Voice) -> Clip:
    """The clip with its pace, its pitch and what is behind it; a function of its id alone."""
    rng = np.random.default_rng([SEED, zlib.crc32(clip.id.encode())])
    pace, pitch = list(PACES)[rng.integers(3)], ("low", "normal", "high")[rng.integers(3)]
    warp = round(1 + rng.uniform(-0.04, 0.04), 2)  # formants, as of a smaller or a larger person
    tempo = round(voice.tempo * PACES[pace] * warp * rng.uniform(0.95, 1.05), 3)
    hertz = round(float(rng.uniform(*PITCHES[voice.sex][pitch])), 1)
    voice = replace(voice, tempo=tempo, warp=warp, hertz=hertz)
    clip = replace(clip, voice=voice, pace=pace, pitch=pitch)
    if rng.integers(WITH_SOUND):
        return clip
    kind, seed = SOUNDS[rng.integers(len(SOUNDS))], int(rng.integers(1, 1 << 30))
    preset = INSTRUMENTS[rng.integers(len(INSTRUMENTS))] if kind == "instrument" else -1
    snr = round(float(rng.uniform(*SNR)), 1)
    return replace(clip, sound=Sound(kind, seed, preset), snr=snr)
