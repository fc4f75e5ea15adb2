"""Audio in which nothing is said, so that a projector learns to make the LM say nothing.

Clips of 1 to 8 s, made on the spot from a seed: hiss, rumble, hum, wind, tones, near silence. The
held-out split has those and one kind more, clicks, that training never hears. Must not know about
encoders or shards.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from omni.audio import SAMPLE_RATE
from omni.formats.files import write_whole
from omni.formats.manifest import Manifest, Utterance, make_manifest

NOISE_SPLITS = {"noise-train": 96, "noise-heldout": 42}  # clips
SHORTEST, LONGEST = 1.0, 8.0  # seconds
QUIET, LOUD = -60.0, -12.0  # dB below full scale, root mean square
SEED = 20_261_124

Floats = np.ndarray
Maker = Callable[[int, np.random.Generator], Floats]


def noise_manifest(split: str, folder: Path) -> Manifest:
    """Write the clips of one of `NOISE_SPLITS` that are missing below `folder`, and list them.

    Raises:
        OmniError: the folder can't be written to.
    """
    utterances = []
    for i in range(NOISE_SPLITS[split]):
        kind, wave = noise(split, i)
        name = f"{split}/{split}-{i:04d}"
        path = folder / f"{name}.wav"
        if not path.is_file():
            write_whole(path, _wav(wave))
        utterances.append(
            Utterance(
                id=name.partition("/")[2], speaker=f"noise-{kind}", audio=f"{name}.wav",
                n_samples=len(wave), sample_rate=SAMPLE_RATE,
            )
        )  # fmt: skip
    return make_manifest(split, folder, utterances)


def noise(split: str, i: int) -> tuple[str, Floats]:
    """(kind, float32 wave at 16 kHz) of clip i of a split; a pure function of both."""
    rng = np.random.default_rng([SEED, sorted(NOISE_SPLITS).index(split), i])
    kinds = list(KINDS) if split == "noise-heldout" else [k for k in KINDS if k != "clicks"]
    kind = kinds[i % len(kinds)]
    n = int(rng.uniform(SHORTEST, LONGEST) * SAMPLE_RATE)
    wave = KINDS[kind](n, rng)
    wave /= max(float(np.sqrt(np.mean(wave**2))), 1e-9)
    quiet = kind == "silence"
    level = rng.uniform(-90, QUIET) if quiet else rng.uniform(QUIET, LOUD)
    return kind, np.clip(wave * 10 ** (level / 20), -1, 1).astype(np.float32)


def _white(n: int, rng: np.random.Generator) -> Floats:
    return rng.standard_normal(n)


def _coloured(slope: float) -> Maker:
    """Power falls with frequency to the `slope`: 1 is pink, 2 brown."""

    def make(n: int, rng: np.random.Generator) -> Floats:
        spectrum = np.fft.rfft(rng.standard_normal(n))
        hertz = np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 20.0)
        return np.fft.irfft(spectrum * hertz ** (-slope / 2), n)

    return make


def _hum(n: int, rng: np.random.Generator) -> Floats:
    """Mains at 50 or 60 Hz with falling harmonics, over a little hiss."""
    time = np.arange(n) / SAMPLE_RATE
    base = rng.choice([50.0, 60.0])
    parts = [
        np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6.3)) / k ** rng.uniform(0.5, 1.5)
        for k in range(1, 12)
    ]
    return np.sum(parts, 0) + 0.05 * rng.standard_normal(n)


def _wind(n: int, rng: np.random.Generator) -> Floats:
    """Brown noise that swells and falls."""
    time = np.arange(n) / SAMPLE_RATE
    swell = 1.1 + np.sin(2 * np.pi * rng.uniform(0.2, 1.5) * time + rng.uniform(0, 6.3))
    return _coloured(2)(n, rng) * swell


def _tone(n: int, rng: np.random.Generator) -> Floats:
    """A pitch that glides."""
    begin, end = rng.uniform(120, 3000, 2)
    hertz = np.geomspace(begin, end, n)
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE) + 0.02 * rng.standard_normal(n)


def _clicks(n: int, rng: np.random.Generator) -> Floats:
    """A few clicks a second that ring off."""
    wave = 0.01 * rng.standard_normal(n)
    ring = np.exp(-np.arange(800) / 80) * np.sin(np.arange(800) * rng.uniform(0.3, 2.0))
    for at in rng.integers(0, max(n - 800, 1), max(1, round(3 * n / SAMPLE_RATE))):
        wave[at : at + 800] += ring[: n - at]
    return wave


KINDS: dict[str, Maker] = {
    "white": _white,
    "pink": _coloured(1),
    "brown": _coloured(2),
    "hum": _hum,
    "wind": _wind,
    "tone": _tone,
    "silence": _white,
    "clicks": _clicks,
}


def _wav(wave: Floats) -> bytes:
    """16-bit PCM."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()
