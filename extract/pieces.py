"""A piece of a recording, decoded without the rest of it where its format can be entered anywhere.

Must not know where pieces are listed.
"""

from pathlib import Path

import numpy as np

from omni.audio import SAMPLE_RATE, load_audio, to_mono_16k
from omni.errors import OmniError

# Formats in which libsndfile finds a sample exactly; in an MP3 or an Ogg it comes near.
_EXACT = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF"}


def load_piece(path: Path, start: float = 0.0, length: float = 0.0) -> np.ndarray:
    """Decode a recording, or a piece of it, to mono 16 kHz.

    Args:
        path: the recording.
        start: seconds that the piece begins at.
        length: seconds that it lasts; 0: to the recording's end.

    Returns:
        float32 (n_samples,), contiguous, n_samples >= 1.

    Raises:
        OmniError: as `load_audio`; the piece is not in the recording. It may end a tenth of a second
            behind it, since tables round.
    """
    if not start and not length:
        return load_audio(path)
    wave = _read(path, start, length)
    if wave is None:
        begin = round(start * SAMPLE_RATE)
        end = round((start + length) * SAMPLE_RATE) if length else None
        whole = load_audio(path)
        if begin >= len(whole) or (end or 0) > len(whole) + SAMPLE_RATE // 10:
            has = f"the recording has {len(whole) / SAMPLE_RATE:.2f} s"
            raise OmniError(f"the piece ends at {start + length:g} s, {has}", str(path))
        wave = whole[begin:end]
    return np.ascontiguousarray(wave, dtype=np.float32)


def _read(path: Path, start: float, length: float) -> np.ndarray | None:
    """The piece alone; None where only the whole file tells what is in it."""
    import soundfile

    if not length:
        return None  # the end is where the decoder says, not the header
    try:
        with soundfile.SoundFile(str(path)) as sound:
            begin, n = round(start * sound.samplerate), round(length * sound.samplerate)
            if sound.format not in _EXACT or not sound.seekable() or not n:
                return None
            if not begin + n <= sound.frames < 2**62:
                return None
            sound.seek(begin)
            samples = sound.read(n, dtype="float32", always_2d=True)  # (n, channels)
            rate = sound.samplerate
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError):
        return None
    return to_mono_16k(samples, rate, str(path)) if len(samples) == n else None
