"""Small recordings in every format, made on the spot, and ways to break them."""

import io
from pathlib import Path

import numpy as np
import soundfile

from omni.audio import audio_info, load_audio

RATE = 16_000


def hiss(n: int = 40_000, seed: int = 1) -> np.ndarray:
    """Dull noise, float32 (n,), peak 0.5: what lossy coders keep about as it is."""
    noise = np.random.default_rng(seed).standard_normal(n)
    wave = np.convolve(noise, np.hanning(12), "same")
    return (wave / np.abs(wave).max() * 0.5).astype(np.float32)


def encode(
    format: str,
    subtype: str | None = None,
    wave: np.ndarray | None = None,
    rate: int = RATE,
    vbr: bool = False,
) -> bytes:
    """The bytes of a file that libsndfile writes; mp3 in variable bit rate if asked."""
    out = io.BytesIO()
    extra = {"bitrate_mode": "VARIABLE", "compression_level": 0.4} if vbr else {}
    sound = hiss() if wave is None else wave
    soundfile.write(out, sound, rate, format=format, subtype=subtype, **extra)
    return out.getvalue()


def encode_media(
    format: str, codec: str, wave: np.ndarray | None = None, rate: int = RATE
) -> bytes:
    """The bytes of a mono file that FFmpeg writes, through PyAV."""
    import av

    out = io.BytesIO()
    sound = hiss() if wave is None else wave
    with av.open(out, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        context = stream.codec_context
        context.bit_rate = 64_000
        context.open()
        frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for part in av.AudioResampler(context.format, "mono", rate).resample(frame):
            part.pts = None
            fifo.write(part)
        size = context.frame_size or 1024
        while fifo.samples:
            packet_of = fifo.read(size) if fifo.samples >= size else fifo.read(0, partial=True)
            container.mux(stream.encode(packet_of))
        container.mux(stream.encode(None))
    return out.getvalue()


def put(blob: bytes, at: int, value: int, width: int = 4, order: str = "little") -> bytes:
    """The bytes with a number written over them; it wraps as a header's field does."""
    field = (value % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return blob[:at] + field + blob[at + width :]


def lengths(folder: Path, blob: bytes) -> tuple[int, int]:
    """(samples by `audio_info` at its rate, samples by `load_audio` at 16 kHz) of a file."""
    path = folder / "recording"
    path.write_bytes(blob)
    n, rate = audio_info(path)
    wave = load_audio(path)
    assert np.array_equal(load_audio(blob), wave)  # from memory as from a file
    assert len(wave) == -(-n * RATE // rate)
    return n, len(wave)
