"""Sounds to put behind a voice, or instead of one: hiss, hum, a phone, an instrument, applause, babble.

Made from a seed; those that name a preset are played from the soundfont of fetch_voices.py. Must not
know any corpus, nor what a question about a sound is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torchaudio
from fetch_voices import CACHE, SOUNDFONT, check, package
from synthesis import PEAK, RATE, Voice, speak

from omni.errors import OmniError

Wave = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
_FONT_RATE = 48_000  # played at, then resampled: the player itself interpolates roughly
PHONE, APPLAUSE = 124, 126  # General MIDI's numbers, from 0
SILENCE_LEVEL = -72.0  # dB below full scale, of what is left where nothing sounds
# Nothing of the grammar: who speaks behind must not be taken for who is asked about.
_CHATTER = (
    "did anybody remember to lock it up before leaving yesterday evening",
    "well i would rather have gone along with her brother instead",
    "they never told us how much of it was left over from last summer",
    "perhaps we ought to ask someone who knows about such things",
    "you should have seen his face when she finally came home",
)
_CROWD = (("flite", "rms", "M"), ("flite", "slt", "F"), ("flite", "kal16", "M"))


@dataclass(frozen=True)
class Sound:
    """One sound.

    Attributes:
        kind: a key of `MAKERS`.
        seed: of its chance.
        preset: General MIDI's number (from 0) of the instrument that plays; -1: made here.
    """

    kind: str
    seed: int
    preset: int = -1


def make(sound: Sound, n: int) -> Wave:
    """(n,) float32 at 16 kHz, root mean square 1; the same samples every time.

    Raises:
        OmniError: no such kind.
    """
    if sound.kind not in MAKERS:
        raise OmniError(f"no sound {sound.kind!r}", "one of", ", ".join(MAKERS))
    wave = MAKERS[sound.kind](n, np.random.default_rng([20_261_127, sound.seed]), sound.preset)
    return (wave / max(float(np.sqrt(np.mean(wave**2))), 1e-9)).astype(np.float32)


def behind(voice: Wave, sound: Sound, snr: float) -> Wave:
    """The voice with the sound behind it, `snr` dB below by the power of both over the whole clip;
    silence changes nothing."""
    if sound.kind == "silence":
        return voice
    level = float(np.sqrt(np.mean(voice**2))) * 10 ** (-snr / 20)
    both = voice + level * make(sound, len(voice))
    return (both * (PEAK / np.abs(both).max())).astype(np.float32)


def alone(sound: Sound, seconds: float) -> Wave:
    """The sound and no voice, at the peak that a clip has; silence stays silent."""
    wave = make(sound, round(seconds * RATE))
    if sound.kind == "silence":
        return (wave * 10 ** (SILENCE_LEVEL / 20)).astype(np.float32)
    return (wave * (PEAK / np.abs(wave).max())).astype(np.float32)


def _hiss(n: int, rng: np.random.Generator, preset: int) -> Floats:
    """Noise whose power falls with frequency, a little or not at all."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hertz = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 50.0)
    return np.fft.irfft(spectrum * hertz ** -rng.uniform(0.0, 0.4), n)


def _hum(n: int, rng: np.random.Generator, preset: int) -> Floats:
    """Mains at 50 or 60 Hz: odd harmonics above the even ones."""
    time = np.arange(n) / RATE
    base = rng.choice([50.0, 60.0]) * rng.uniform(0.995, 1.005)
    waves = [
        np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6.28))
        * (1.0 if k % 2 else 0.4)
        / k**0.7
        for k in range(1, 14)
    ]
    return np.sum(waves, 0)


def _silence(n: int, rng: np.random.Generator, preset: int) -> Floats:
    return rng.standard_normal(n)


def _telephone(n: int, rng: np.random.Generator, preset: int) -> Floats:
    """A bell that rings and rests; or the soundfont's."""
    if preset >= 0:
        key, gap = int(rng.integers(66, 80)), rng.uniform(0.055, 0.085)  # of a single stroke
        cycle, rung = rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.8)
        strokes = [i * gap for i in range(int(n / RATE / gap)) if i * gap % cycle < rung]
        return _play(preset, [(at, key, 100) for at in strokes], n)
    time = np.arange(n) / RATE
    low = rng.uniform(900, 1200)
    rate = rng.uniform(18, 26)  # of the clapper, a second
    ringing = ((time + rng.uniform(0, 0.3)) % rng.uniform(1.0, 1.6)) < rng.uniform(0.6, 0.9)
    decay = np.exp(-36 * ((time * rate) % 1.0) / rate)
    tone = sum(np.sin(2 * np.pi * low * r * time) / (i + 1) for i, r in enumerate((1, 1.34, 2.76)))
    return np.asarray(tone * decay * ringing + 1e-3 * rng.standard_normal(n))


def _applause(n: int, rng: np.random.Generator, preset: int) -> Floats:
    """Many hands; or the soundfont's."""
    if preset >= 0:
        key = int(rng.integers(55, 70))
        return _play(preset, [(0.0, key, 110), (0.4, key + 3, 100)], n)
    wave = np.zeros(n + RATE)
    clap = np.exp(-np.arange(400) / rng.uniform(50, 90))
    for start in rng.uniform(0, n, int(n / RATE * rng.uniform(90, 160))).astype(int):
        burst = rng.standard_normal(400) * clap * rng.uniform(0.2, 1.0)
        wave[start : start + 400] += np.convolve(burst, rng.standard_normal(6), "same")
    return wave[:n]


def _instrument(n: int, rng: np.random.Generator, preset: int) -> Floats:
    """A tune of a major scale, two to four notes a second, in steps and small leaps."""
    if preset < 0:
        raise OmniError("an instrument without a number", "Sound.preset")
    scale = (0, 2, 4, 5, 7, 9, 11)
    place, at, notes = int(rng.integers(0, 7)), 0.0, []
    key = int(rng.integers(55, 62))
    while at < n / RATE:
        notes.append((at, key + 12 * (place // 7) + scale[place % 7], 100))
        at += float(rng.choice([0.25, 0.25, 0.375, 0.5]))
        place = int(np.clip(place + rng.integers(-2, 3), 0, 13))
    return _play(preset, notes, n)


def _babble(n: int, rng: np.random.Generator, preset: int) -> Floats:
    """Four people at once, each somewhere in his sentence."""
    wave = np.zeros(n)
    for _ in range(4):
        talk = _chatter(int(rng.integers(len(_CROWD))), int(rng.integers(len(_CHATTER))))
        talk = talk * (rng.uniform(0.7, 1.0) / np.sqrt(np.mean(talk**2)))
        start = int(rng.integers(len(talk)))
        wave += np.resize(np.roll(talk, -start), n)
    return wave


Maker = Callable[[int, np.random.Generator, int], Floats]
MAKERS: dict[str, Maker] = {
    "hiss": _hiss,
    "hum": _hum,
    "telephone": _telephone,
    "instrument": _instrument,
    "applause": _applause,
    "babble": _babble,
    "silence": _silence,
}


@cache
def _chatter(who: int, what: int) -> Wave:
    return speak(Voice(*_CROWD[who]), _CHATTER[what])


def _play(preset: int, notes: list[tuple[float, int, int]], n: int) -> Floats:
    """Notes (seconds, key, velocity) on one instrument, each until the next: (n,)."""
    check()
    synth = package("tinysoundfont").Synth(samplerate=_FONT_RATE)
    synth.program_select(0, synth.sfload(str(CACHE / SOUNDFONT)), 0, preset)
    total = -(-n * _FONT_RATE // RATE)
    pieces, done, key = [], 0, -1
    for start, following, velocity in [*notes, (total / _FONT_RATE, -1, 0)]:
        frames = min(round(start * _FONT_RATE), total) - done
        if frames > 0:
            heard = np.frombuffer(bytes(synth.generate(frames)), np.float32)
            pieces.append(heard.reshape(-1, 2).mean(1))
            done += frames
        if key >= 0:
            synth.noteoff(0, key)
        if following >= 0:
            synth.noteon(0, following, velocity)
        key = following
    wave = torch.from_numpy(np.concatenate(pieces))
    return torchaudio.functional.resample(wave, _FONT_RATE, RATE).numpy()[:n].astype(np.float64)
