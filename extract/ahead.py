"""Recordings decoded in threads ahead of the encoder, in order, a bounded length of audio at a time.

Threads and not processes decode: libsndfile and hashlib let go of the interpreter's lock, and another
process's samples would have to be copied here. `bench/decode.py`, one and two workers: 0.87 and 0.57 s
in threads, 1.36 and 0.83 s in processes, 1.16 and 0.63 s in processes with shared memory. Must not know
what becomes of the audio.
"""

import errno
import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.inputs import NO_FILE, AudioFile, audio_file
from extract.lengths import expected_seconds
from extract.pieces import load_piece
from omni.audio import SAMPLE_RATE
from omni.errors import OmniError, brief
from omni.formats.manifest import Problem, Utterance

# Of audio decoded and not yet asked for, a thread: 77 MB. One longer recording waits alone.
SECONDS_AHEAD = 20 * 60.0
# What no recording is to blame for: the next one would meet it too.
_EVERYBODYS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(frozen=True)
class Decoded:
    """A decoded utterance, or why there is none."""

    utterance: Utterance
    wave: np.ndarray  # float32 (n,), 16 kHz; empty where it failed
    sha256: str  # of the wave
    file: AudioFile
    problem: Problem
    reason: str  # the problem in words
    seconds: float  # that decoding took


def decode_ahead(
    rows: Iterable[tuple[Utterance, Path]], pool: ThreadPoolExecutor, workers: int, at_least: int
) -> Iterator[Decoded]:
    """Decoded utterances in order.

    Args:
        rows: utterances and where their files are.
        pool: of `workers` threads.
        at_least: utterances that should be there in advance, if they are short.
    """
    most, most_seconds = at_least + 4 * workers, SECONDS_AHEAD * workers
    waiting: deque[tuple[Future[Decoded], float]] = deque()
    for utterance, path in rows:
        seconds = _at_most(utterance, path)
        while waiting and (len(waiting) > most or _held(waiting) + seconds > most_seconds):
            yield waiting.popleft()[0].result()
        waiting.append((pool.submit(decode, utterance, path), seconds))
    while waiting:
        yield waiting.popleft()[0].result()


def decode(utterance: Utterance, path: Path) -> Decoded:
    """One utterance; whatever is bad about its file is its own problem, and told in `reason`.

    Raises:
        OSError: what is nobody's own, as a full disk or too many open files.
    """
    start = time.perf_counter()
    wave, digest, file = np.empty(0, np.float32), "", NO_FILE
    problem, reason = utterance.problem, utterance.note or utterance.problem.value
    if utterance.is_complete:
        file = audio_file(utterance, path)
        try:
            wave = load_piece(path, utterance.start, utterance.length)
            digest = hashlib.sha256(wave.astype("<f4", copy=False).data).hexdigest()
            problem, reason = (Problem.NONE, "") if len(wave) else (Problem.UNREADABLE, "no sound")
        except Exception as error:  # a decoder may raise anything over bytes that it has not met
            _raise_if_everybodys(error)
            problem, reason = Problem.UNREADABLE, _in_words(error)
    return Decoded(utterance, wave, digest, file, problem, reason, time.perf_counter() - start)


def _at_most(utterance: Utterance, path: Path) -> float:
    """Seconds to reserve. A promise is believed here even where the file is too small for speech:
    an hour of silence is 180 kB of FLAC, and a broken header only makes its file wait alone."""
    promised = utterance.seconds if utterance.is_complete else 0.0
    return max(promised, expected_seconds(utterance, path))


def _held(waiting: Iterable[tuple[Future[Decoded], float]]) -> float:
    """Seconds of audio in advance: as they are where decoding is done, else as expected."""
    return sum(
        len(future.result().wave) / SAMPLE_RATE
        if future.done() and not future.cancelled() and future.exception() is None
        else expected
        for future, expected in waiting
    )


def _raise_if_everybodys(error: BaseException | None) -> None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _EVERYBODYS:
            raise error
        error = error.__cause__


def _in_words(error: Exception) -> str:
    if isinstance(error, OmniError):
        return f"{error.what}: {error.mend}" if error.mend else error.what
    return f"audio can't be decoded: {brief(error)}"
