"""Recordings that libsndfile doesn't know (m4a, mp4, webm, aac, wma), decoded with PyAV.

PyAV is the extra `media`; without it such a file is refused in words. Must not know about rates
or channels wanted.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from omni.audio.mono import Block
from omni.audio.mp3 import id3_size
from omni.audio.source import Part, Source, View, Window
from omni.errors import OmniError

if TYPE_CHECKING:
    import av.container

# FFmpeg is told which format to read, so that a playlist or a script of another format can't make
# it open other files.
_FORMATS = {
    b"\x1aE\xdf\xa3": "matroska",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"#!AMR": "amr",
    b"caff": "caf",
    b"wvpk": "wv",
    b"OggS": "ogg",
}
MAYBE_SNDFILE = ("caf", "ogg")  # libsndfile reads most of these, and is asked first
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # what mp4 and mov begin with
_BLOCK = 1 << 16  # samples per channel in a block
_SLACK_SECONDS = 0.1  # a container rounds its duration to frames, and counts the encoder's delay in


def media_format(source: Source) -> str | None:
    """FFmpeg's name of the format, by the first bytes; None if it is not one of these."""
    window = Window(source)
    head = window.at(id3_size(window, 0), 16)
    if head[4:8] in _ATOMS:
        return "mov"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return next((name for mark, name in _FORMATS.items() if head.startswith(mark)), None)


def advice(source: Source) -> str:
    """How to make a file of it that can be read."""
    name = source.where if source.path is not None else "FILE"
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0] or name
    return f"convert it: ffmpeg -i {shlex.quote(name)} {shlex.quote(stem + '.wav')}"


def media_blocks(source: Source, part: Part, format: str) -> Iterator[Block]:
    """Decode the first stream of sound.

    Raises:
        OmniError: PyAV is not installed; no sound in it; a damaged or cut file.
    """
    with _opened(source, part, format) as (av, container):
        stream = container.streams.audio[0]
        promised = _promised_seconds(container, stream)
        rate = stream.rate
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        waiting: list[np.ndarray] = []
        length = total = 0
        for frame in container.decode(stream):
            for plain in resampler.resample(frame):
                waiting.append(plain.to_ndarray().T)  # (n, channels)
                length += plain.samples
            if length >= _BLOCK:
                yield Block(np.concatenate(waiting), rate)
                total, length, waiting = total + length, 0, []
        waiting += [plain.to_ndarray().T for plain in resampler.resample(None)]
        if waiting:
            yield Block(np.concatenate(waiting), rate)
            total += sum(map(len, waiting))
        if promised is not None and total / rate < promised - _SLACK_SECONDS:
            raise OmniError(
                f"audio is cut off: {total / rate:.2f} of {promised:.2f} seconds", source.where
            )


@contextmanager
def _opened(
    source: Source, part: Part, format: str
) -> Iterator[tuple[Any, "av.container.InputContainer"]]:
    """PyAV and the open container; its errors become ours."""
    try:
        import av
    except ImportError as error:
        raise OmniError(
            "audio can't be decoded: this format needs PyAV",
            source.where,
            f"{advice(source)}, or install the extra media",
        ) from error
    file = View(source, part.pieces) if part.pieces else source.file
    file.seek(0)
    try:
        with av.open(file, "r", format=format, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise OmniError("no sound in the file", source.where)
            yield av, container
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise OmniError("audio can't be decoded", source.where, str(error)) from error


def _promised_seconds(container: "av.container.InputContainer", stream: Any) -> float | None:
    """How long the container says its sound is; None if it doesn't."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1 and container.format.name != "aac":
        return container.duration / 1_000_000
    return None
