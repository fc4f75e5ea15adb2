"""Parts of a recording to blocks of samples, with libsndfile. Must not know about formats."""

from collections.abc import Iterator
from typing import Any

import soundfile

from omni.audio.mono import Block
from omni.audio.source import Part, Source, View, cut_off
from omni.errors import OmniError

_BLOCK_SAMPLES = 1 << 18  # of all channels, decoded at once
# Of soundfile, all that a damaged file has been seen to raise.
_ERRORS = (OSError, RuntimeError, TypeError, ValueError, AssertionError)


class _Forward(soundfile.SoundFile):
    """Reads on from where it is.

    soundfile seeks behind every block: slow in FLAC, inexact in MP3, an error where a length is not
    known. Told that it can't, it doesn't.
    """

    def seekable(self) -> bool:
        return False


def sndfile_blocks(source: Source, part: Part, mend: str = "") -> Iterator[Block]:
    """Decode a part, at least one block, which may be empty.

    Args:
        mend: advice to a user whose file is not understood.

    Raises:
        OmniError: it can't be decoded, or ends before it should.
    """
    with _open(source, part, mend) as sound:
        size = max(_BLOCK_SAMPLES // sound.channels, 1)
        frames = _frames(sound)
        total, promised = 0, max(part.at_least, frames)
        while True:
            # Not a sample further than the header says: what stands behind the sound is no sound.
            wanted = min(size, frames - total) if frames else size
            try:
                samples = sound.read(wanted, dtype="float32", always_2d=True)  # (n, channels)
            except _ERRORS as error:
                if promised:
                    what = f"audio is cut off or damaged: its {promised} samples are not all there"
                    raise OmniError(what, source.where, _words(error)) from error
                raise _damaged(error, source, mend) from error
            total += len(samples)
            yield Block(samples, sound.samplerate)
            if len(samples) < wanted or total == frames:
                break
        # read() stops silently where a damaged file does: the promise is the witness.
        if total < promised:
            raise cut_off(total, promised, "samples", source.where)


def sndfile_count(source: Source, part: Part, mend: str = "") -> tuple[int, int]:
    """(samples per channel, rate) by the header; 0 samples where it doesn't say.

    Raises:
        OmniError: libsndfile does not know the format.
    """
    with _open(source, part, mend) as sound:
        return _frames(sound), sound.samplerate


def _frames(sound: soundfile.SoundFile) -> int:
    return sound.frames if 0 < sound.frames < 2**62 else 0


def _open(source: Source, part: Part, mend: str) -> soundfile.SoundFile:
    file: Any
    if part.pieces:
        file = View(source, part.pieces)
    else:
        # By its path libsndfile reads a file without asking Python for each block.
        file = source.file if source.path is None else source.path
        source.file.seek(0)
    try:
        return _Forward(file)
    except _ERRORS as error:
        raise _damaged(error, source, mend) from error


def _damaged(error: Exception, source: Source, mend: str = "") -> OmniError:
    return OmniError("audio can't be decoded", source.where, f"{_words(error)} {mend}".strip())


def _words(error: Exception) -> str:
    """libsndfile's words without the file's name, which `where` has."""
    return str(getattr(error, "error_string", error))
