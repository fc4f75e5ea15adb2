"""Any audio file to the one shape Whisper hears: mono, 16 kHz, float32.

Must not know about Whisper, corpora or shards.
"""

import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from omni.errors import OmniError

SAMPLE_RATE = 16_000
# What counts as a recording, in any case: what libsndfile reads, then what needs PyAV (or a word of
# how to convert it: it is never passed over).
AUDIO_SUFFIXES = frozenset(
    (
        *(".flac", ".wav", ".wave", ".w64", ".rf64", ".ogg", ".oga", ".opus", ".mp3", ".aiff"),
        *(".aif", ".aifc", ".au", ".snd", ".caf", ".sph"),
        *(".m4a", ".m4b", ".aac", ".mp4", ".webm", ".weba", ".wma", ".mka", ".amr", ".3gp", ".mp2"),
    )
)
# torchaudio's resampling kernel has (rate / g) x (16000 / g) taps times its width, g the common
# divisor. Past this many taps (200 MB of float32) a rate is a broken header, not a recording.
_MAX_KERNEL_TAPS = 50_000_000

AudioSource = str | Path | bytes | BinaryIO


def load_audio(source: AudioSource) -> np.ndarray:
    """Decode a file to mono 16 kHz.

    Args:
        source: a path, the bytes of a file, or an open binary file (flac, wav, ogg/opus, mp3, and
            whatever else libsndfile reads).

    Returns:
        float32 (n_samples,) in about [-1, 1], contiguous, n_samples >= 1.

    Raises:
        OmniError: missing, unreadable, truncated or empty file; samples that are not finite; a
            sample rate that can't be resampled.
    """
    import soundfile

    where = _name(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if isinstance(file, str | Path):
        _require_file(Path(file))
    try:
        # read() stops silently where a damaged FLAC does: the header's count is the witness.
        with soundfile.SoundFile(file) as sound:
            rate, promised = sound.samplerate, sound.frames
            samples = sound.read(dtype="float32", always_2d=True)  # (n, channels)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise OmniError("audio can't be decoded", where, str(error)) from error
    if 0 < promised < 2**62 and len(samples) < promised:
        raise OmniError(f"audio is cut off: {len(samples)} of {promised} samples", where)
    return to_mono_16k(samples, rate, where)


def to_mono_16k(samples: np.ndarray, rate: int, where: str = "") -> np.ndarray:
    """Channels to their mean, any sample rate to 16 kHz.

    Args:
        samples: float32 (n,) or (n, channels).
        rate: sample rate in Hz.
        where: what the error names.

    Returns:
        float32 (n,), contiguous.
    """
    wave = samples.mean(axis=1) if samples.ndim == 2 else samples
    if wave.size == 0:
        raise OmniError("audio is empty", where)
    if not np.isfinite(wave).all():
        raise OmniError("audio holds samples that are not finite", where)
    if rate != SAMPLE_RATE:
        wave = _resample(wave, rate, where)
    return np.ascontiguousarray(wave, dtype=np.float32)


def audio_info(path: Path) -> tuple[int, int]:
    """(samples per channel, sample rate in Hz) from the header alone.

    Raises:
        OmniError: missing, empty or unreadable file.
    """
    import soundfile

    _require_file(path)
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise OmniError("audio can't be decoded", str(path), str(error)) from error
    return info.frames, info.samplerate


def import_torchaudio() -> None:
    """Fail early, in one line, where torch and torchaudio do not match.

    torchaudio's wheel does not declare which torch it was built for; beside another one its import
    fails, and the import of transformers with it.
    """
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        import torch

        raise OmniError(
            "torchaudio can't be loaded beside this torch",
            f"torch {torch.__version__}",
            f"install both in the versions of requirements.lock ({error})",
        ) from error


def _resample(wave: np.ndarray, rate: int, where: str) -> np.ndarray:
    common = math.gcd(rate, SAMPLE_RATE) if rate > 0 else 0
    if not common or (rate // common) * (SAMPLE_RATE // common) > _MAX_KERNEL_TAPS:
        raise OmniError(f"audio at {rate} Hz can't be resampled to {SAMPLE_RATE} Hz", where)
    import_torchaudio()
    import torch
    import torchaudio

    resampled = torchaudio.functional.resample(torch.from_numpy(wave), rate, SAMPLE_RATE)
    return resampled.numpy()


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise OmniError("no such audio file", str(path))
    if path.stat().st_size == 0:
        raise OmniError("audio file has 0 bytes", str(path))


def _name(source: AudioSource) -> str:
    if isinstance(source, bytes):
        return f"{len(source)} bytes of audio"
    return str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "audio"))
