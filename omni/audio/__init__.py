"""Any audio file to the one shape Whisper hears: mono, 16 kHz, float32.

- source: bytes of a file, of a stretch of it, or with a header put right
- chunks, ogg, flac, mp3, boxes: what a file of the kind holds, and whether it is all there
- sndfile: bytes to blocks of samples; media: what libsndfile can't read, with PyAV
- mono: blocks of samples to the wave

Must not know about Whisper, corpora or shards.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from omni.audio.boxes import matroska_parts, mp4_parts
from omni.audio.chunks import HEADS, chunk_parts
from omni.audio.flac import flac_parts
from omni.audio.media import MAYBE_SNDFILE, advice, media_blocks, media_format
from omni.audio.mono import (
    SAMPLE_RATE,
    Block,
    check_format,
    check_length,
    import_torchaudio,
    mono_16k,
)
from omni.audio.mp3 import id3_size, mp3_parts
from omni.audio.ogg import ogg_parts
from omni.audio.source import WHOLE, AudioSource, Part, Source, Window
from omni.errors import OmniError

__all__ = [
    "AUDIO_SUFFIXES",
    "SAMPLE_RATE",
    "AudioSource",
    "audio_info",
    "import_torchaudio",
    "load_audio",
    "to_mono_16k",
]

# What counts as a recording, in any case: what libsndfile reads, then what needs PyAV (or a word of
# how to convert it: it is never passed over).
AUDIO_SUFFIXES = frozenset(
    (
        *(".flac", ".wav", ".wave", ".w64", ".rf64", ".ogg", ".oga", ".opus", ".mp3", ".aiff"),
        *(".aif", ".aifc", ".au", ".snd", ".caf", ".sph"),
        *(".m4a", ".m4b", ".aac", ".mp4", ".webm", ".weba", ".wma", ".mka", ".amr", ".3gp", ".mp2"),
    )
)
_BOXED = {"mov": mp4_parts, "matroska": matroska_parts}


def load_audio(source: AudioSource) -> np.ndarray:
    """Decode a recording to mono 16 kHz.

    Files joined end to end (a chain of Ogg streams, MP3, FLAC or WAV files) are read to the last.
    A header's length is checked against what is there, not believed.

    Args:
        source: a path, the bytes of a file, or an open binary file (flac, wav, ogg/opus, mp3, and
            whatever else libsndfile reads; m4a, mp4, webm, aac and wma where PyAV is installed).

    Returns:
        float32 (n_samples,) in about [-1, 1], contiguous, n_samples >= 1.

    Raises:
        OmniError: missing, unreadable, cut off or empty file; samples that are not finite or
            absurdly large; a rate, a number of channels or a length that no recording has.
    """
    with Source(source) as opened:
        waves, seconds = [], 0.0
        for part in _parts(opened, thorough=True):
            waves.append(mono_16k(lambda part=part: _blocks(opened, part), opened.where))  # type: ignore[misc]
            seconds += len(waves[-1]) / SAMPLE_RATE
            check_length(seconds, opened.where)
    wave = waves[0] if len(waves) == 1 else np.concatenate(waves)
    if not len(wave):
        raise OmniError("audio is empty", opened.where)
    return np.ascontiguousarray(wave, dtype=np.float32)


def to_mono_16k(samples: np.ndarray, rate: int, where: str = "") -> np.ndarray:
    """What `load_audio` does with decoded samples.

    Args:
        samples: float32 (n,) or (n, channels).
        rate: sample rate in Hz.
        where: what the error names.

    Returns:
        float32 (n,), contiguous.
    """
    block = Block(samples if samples.ndim == 2 else samples[:, None], rate)
    wave = mono_16k(lambda: [block], where)
    if not len(wave):
        raise OmniError("audio is empty", where)
    return np.ascontiguousarray(wave, dtype=np.float32)


def audio_info(path: Path) -> tuple[int, int]:
    """(samples per channel, sample rate in Hz), by the header where that can be trusted.

    Where it can't, the frames or the samples are counted, a block at a time. Of joined files with
    unlike rates, samples at the first one's rate.

    Raises:
        OmniError: missing, empty, unreadable or cut off file, or one that `load_audio` would refuse for its
            rate or length.
    """
    with Source(path) as opened:
        counts = [_count(opened, part) for part in _parts(opened, thorough=False)]
        rate = counts[0][1]
        check_format(rate, 1, opened.where)
        total = sum(n if r == rate else round(n * rate / r) for n, r in counts)
        check_length(total / rate, opened.where)
    return total, rate


def _parts(source: Source, thorough: bool) -> list[Part]:
    """What decoders are to read, one part after the other."""
    window = Window(source)
    begin = id3_size(window, 0)
    head = window.at(begin, 4)
    if head == b"fLaC":
        return flac_parts(source, begin, thorough)
    if head == b"OggS":
        return ogg_parts(source)
    if begin == 0 and head in HEADS:
        return chunk_parts(source)
    format = media_format(source)
    if format in _BOXED:
        return _BOXED[format](source)
    return mp3_parts(source, begin) or [WHOLE]


def _blocks(source: Source, part: Part) -> Iterator[Block]:
    """Decode a part, with PyAV what libsndfile doesn't know."""
    format = _media(source, part)
    if format:
        return media_blocks(source, part, format)
    from omni.audio.sndfile import sndfile_blocks  # here: who decodes nothing needs no libsndfile

    return sndfile_blocks(source, part, f"If it is sound, {advice(source)}")


def _count(source: Source, part: Part) -> tuple[int, int]:
    """(samples, rate) of a part, decoded where its header doesn't know."""
    from omni.audio.sndfile import sndfile_count

    if not _media(source, part):
        n, rate = sndfile_count(source, part, f"If it is sound, {advice(source)}")
        if n:
            return n, rate
    n, rate = 0, SAMPLE_RATE
    for samples, rate in _blocks(source, part):
        n += len(samples)
        check_length(n / rate, source.where)
    return n, rate


def _media(source: Source, part: Part) -> str | None:
    """PyAV's name of the format; None for libsndfile."""
    from omni.audio.sndfile import sndfile_count

    format = media_format(source)
    if format in MAYBE_SNDFILE:
        try:
            sndfile_count(source, part)
        except OmniError:
            return format
        return None
    return format
