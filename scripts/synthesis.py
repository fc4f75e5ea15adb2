"""Sentences to 16 kHz clips through flite, espeak-ng, Kokoro and piper, for the scripts that build a corpus.

Must not know any corpus: it speaks one sentence in one voice and writes one clip.
"""

import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile as sf
import torch
import torchaudio

from omni.audio import SAMPLE_RATE
from omni.errors import OmniError

RATE = SAMPLE_RATE  # of every clip
EDGE = 0.1  # seconds of silence kept at either end
SILENCE = 0.01  # a sample below this share of the peak is silence
PEAK = 0.6  # of full scale: Opus overshoots, and a clip must not clip
NEURAL = frozenset(("kokoro", "piper"))  # of fetch_voices.py's packages; the others are programs
OPUS_LEVEL = 0.94  # libsndfile's scale of 0 to 1; about 25 kbit/s at 16 kHz mono

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Voice:
    """One speaker.

    Attributes:
        engine: "flite", "espeak-ng", "kokoro" or "piper".
        name: the engine's name of the voice ("rms", "en-us+f3", "af_nova+af_river").
        sex: "F" or "M".
        tempo: speaking time as a share of the engine's default; 1.1 is slower.
        pitch: espeak-ng's pitch, 0 to 99; flite's voices keep their own.
        warp: playback rate; 1.05 raises pitch and formants by 5 % and shortens the clip as much.
            One voice at several warps sounds like several speakers.
        hertz: median pitch that the voice is moved to, formants kept; 0: its own.
        accent: "US", "GB" or "" for neither; Kokoro speaks the phonemes of either in any voice.
    """

    engine: str
    name: str
    sex: str
    tempo: float = 1.0
    pitch: int = 50
    warp: float = 1.0
    hertz: float = 0.0
    accent: str = ""

    def varied(self, rng: np.random.Generator) -> "Voice":
        """The same speaker on another day: tempo, pitch and warp drawn around their own."""
        return replace(
            self,
            tempo=round(self.tempo * rng.uniform(0.9, 1.15), 3),
            pitch=int(np.clip(self.pitch + rng.integers(-15, 16), 0, 99)),
            warp=round(self.warp * rng.uniform(0.93, 1.07), 2),
        )


def speak(voice: Voice, text: str) -> Wave:
    """Synthesise `text`.

    Returns:
        (n,) float32 at 16 kHz, peak 0.6 of full scale, 0.1 s of silence at either end. The same
        samples on every call with the same versions of the engines.

    Raises:
        OmniError: the engine is missing, fails, or returns silence.
    """
    wave, rate = _neural(voice, text) if voice.engine in NEURAL else _program(voice, text)
    # Sixteenths of a percent would make the resampler's polyphase filter huge; `warp` has two digits.
    source = round(rate * voice.warp / 100) * 100
    wave = torchaudio.functional.resample(torch.from_numpy(wave), source, RATE).numpy()
    if voice.hertz:
        from praat import at_pitch  # fetched for whom this concerns

        wave = at_pitch(wave, RATE, voice.hertz)
    return _trim(wave, where=text)


def write_clip(path: Path, wave: Wave) -> None:
    """Write (n,) float32 at 16 kHz as OGG/Opus, unless the file already decodes to the same samples.

    Ogg streams carry a random serial number, so that rewriting would change every file's bytes.
    """
    partial = path.with_suffix(".partial")
    options: dict[str, Any] = {"format": "OGG", "subtype": "OPUS", "compression_level": OPUS_LEVEL}
    sf.write(partial, wave, RATE, **options)
    if path.exists() and np.array_equal(read_clip(path), read_clip(partial)):
        partial.unlink()
    else:
        partial.replace(path)


def read_clip(path: Path) -> Wave:
    """Decode a clip: (n,) float32 at 16 kHz.

    Raises:
        OmniError: the file has another rate or more than one channel.
    """
    wave, rate = sf.read(path, dtype="float32")
    if rate != RATE or wave.ndim != 1:
        raise OmniError(f"clip is not 16 kHz mono ({rate} Hz, shape {wave.shape})", where=str(path))
    return wave


def _neural(voice: Voice, text: str) -> tuple[Wave, int]:
    """(wave, rate) of a network."""
    import neural  # onnxruntime and the rest are fetched for whom this concerns

    if voice.engine == "piper":
        return neural.joe(text, voice.tempo), neural.JOE_RATE
    wave = neural.kokoro(voice.name, voice.accent, text, speed=1 / voice.tempo)
    return wave, neural.KOKORO_RATE


def _program(voice: Voice, text: str) -> tuple[Wave, int]:
    """(wave, rate) of an installed program."""
    if which(voice.engine) is None:
        raise OmniError(
            f"{voice.engine} is not installed", mend="apt-get install flite espeak-ng (Debian)"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        done = subprocess.run(_command(voice, text, path), capture_output=True, text=True)
        if done.returncode != 0 or not path.exists():
            raise OmniError(f"{voice.engine} failed: {done.stderr.strip()}", where=text)
        wave, rate = sf.read(path, dtype="float32")
    return wave, rate


def _command(voice: Voice, text: str, path: Path) -> list[str]:
    """The engine's command line that writes `text` to `path`."""
    if voice.engine == "flite":
        tempo = ["--setf", f"duration_stretch={voice.tempo}"]
        return ["flite", "-voice", voice.name, *tempo, "-t", text, "-o", str(path)]
    speed = str(round(160 / voice.tempo))  # words a minute
    pitch = str(voice.pitch)
    return ["espeak-ng", "-v", voice.name, "-s", speed, "-p", pitch, "-w", str(path), text]


def _trim(wave: Wave, where: str) -> Wave:
    """Scale to `PEAK` and keep `EDGE` seconds around what is louder than silence: (n,) to (m,)."""
    peak = float(np.abs(wave).max(initial=0.0))
    if peak < 1e-3:
        raise OmniError("the engine returned silence", where=where)
    loud = np.flatnonzero(np.abs(wave) > SILENCE * peak)
    edge = int(EDGE * RATE)
    padded = np.pad(wave, edge)  # an engine may start at once: the edges are made, not found
    return (padded[loud[0] : loud[-1] + 2 * edge + 1] * (PEAK / peak)).astype(np.float32)
