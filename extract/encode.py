"""Batches of windows through the encoder, and which of them it fails on.

One recording that the encoder can't take is its own failure; what it fails on whatever it is given ends
the run. Must not know which shard a recording belongs to, or how it is written.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from extract.ring import Buffer, Ring
from omni.errors import brief, is_out_of_memory
from omni.formats.manifest import Problem
from omni.formats.records import SampleMeta, StoredDtype
from omni.whisper.encoder import Layers, WhisperEncoder
from omni.whisper.window import Window

BATCHES_IN_FLIGHT = 4  # encoded, not yet written: bounds memory, hides the disk
_SAMPLES_IN_FLIGHT = 3  # batches of samples: one is filled, one is copied, one waits


@dataclass
class Pending:
    """An utterance whose windows are on their way through the encoder."""

    meta: SampleMeta
    windows_left: int
    pieces: dict[int, np.ndarray] = field(default_factory=dict)  # by the window's place in it
    problem: Problem = Problem.NONE
    reason: str = ""

    def take(self, place: int, piece: np.ndarray) -> None:
        """The features of one of its windows, ([L,] T, d): a view that holds until `keep`."""
        self.pieces[place] = piece
        self.windows_left -= 1

    def keep(self, place: int) -> None:
        """Make a piece its own, unless it was taken out already: the buffer will be used again."""
        if place in self.pieces:
            self.pieces[place] = self.pieces[place].copy()

    def joined(self) -> np.ndarray:
        """Take out the pieces, as features ([L,] T, d); a view still, if there is one alone."""
        pieces = [self.pieces.pop(place) for place in sorted(self.pieces)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-2)

    def give_up(self, reason: str) -> None:
        """One of its windows can't be encoded."""
        self.problem, self.reason = Problem.NOT_ENCODED, reason
        self.windows_left -= 1


class Origin(NamedTuple):
    """Where a window comes from."""

    owner: Pending
    place: int  # of the window in it


@dataclass(frozen=True)
class OwnedWindow:
    """At most 30 s of an utterance."""

    wave: np.ndarray  # float32 (n,)
    owner: Pending
    place: int

    @property
    def origin(self) -> Origin:
        """All that is needed once it was launched: its samples are let go of."""
        return Origin(self.owner, self.place)


@dataclass(frozen=True)
class Batch:
    """Encoded windows: features ([L,] sum of counts, d) on the host once `ready` was called."""

    features: torch.Tensor
    counts: list[int]
    origins: list[Origin]
    marks: list[torch.cuda.Event]  # on a GPU: before mel, after mel, after encoding, after the copy
    ring: Ring | None = None  # on a GPU: that `buffer` goes back to
    buffer: Buffer | None = None  # that holds the features

    def ready(self, seconds: dict[str, float]) -> None:
        """Wait for a GPU, and add its time to the stages' seconds."""
        if self.marks:
            self.marks[-1].synchronize()
            seconds["mel"] += self.marks[0].elapsed_time(self.marks[1]) / 1000
            seconds["encode"] += self.marks[1].elapsed_time(self.marks[2]) / 1000

    def done(self) -> None:
        """Nobody reads the features any more; call it once."""
        if self.ring is not None and self.buffer is not None:
            self.ring.free(self.buffer, busy=self.marks[-1])


@dataclass(frozen=True)
class Encoded:
    """What became of the windows of a batch."""

    batch: Batch | None  # None if all of them failed
    failed: list[tuple[OwnedWindow, str]]  # with the reason


class BatchEncoder:
    """The encoder as a run uses it, and the host's buffers around it.

    Args:
        encoder: where it computes decides the device.
        layers, window: what is computed.
        batch_size: windows.
        stored: how features are stored.
        hands: threads that fill a batch's rows; None: this thread does.
    """

    def __init__(
        self,
        encoder: WhisperEncoder,
        layers: Layers,
        window: Window,
        batch_size: int,
        stored: StoredDtype = "float16",
        hands: ThreadPoolExecutor | None = None,
    ) -> None:
        self.encoder, self.layers, self.window = encoder, layers, window
        self.batch_size = batch_size
        self._stored, self._each = stored, hands.map if hands else map
        self._on_gpu = encoder.device.type == "cuda"
        self._samples = Ring(_SAMPLES_IN_FLIGHT, torch.float32, self._on_gpu)
        # One more than wait to be written, so that none waits for a buffer that is not awaited itself.
        self._features = Ring(BATCHES_IN_FLIGHT + 1, torch.float16, self._on_gpu)

    def __call__(self, windows: list[OwnedWindow], seconds: dict[str, float]) -> Encoded:
        """Launch a batch of windows of one length; on a GPU nothing here waits for it.

        Args:
            seconds: of each stage; a CPU's time is added here, a GPU's by `Batch.ready`.

        Raises:
            Exception: what the encoder raises whatever it is given.
        """
        try:
            return Encoded(self._launch(windows, seconds), [])
        except OSError:
            raise
        except Exception as error:  # anything that a window's samples could bring about
            if is_out_of_memory(error):
                raise
            failed = self._failing(windows)
            if not failed or self._fails_on_silence(windows[0]):
                raise
            culprits = {id(window) for window, _ in failed}
            good = [window for window in windows if id(window) not in culprits]
            return Encoded(self._launch(good, seconds) if good else None, failed)

    def _failing(self, windows: list[OwnedWindow]) -> list[tuple[OwnedWindow, str]]:
        failed = []
        for window in windows:
            try:
                self._launch([window], {"mel": 0.0, "encode": 0.0}).done()
            except OSError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                failed.append((window, f"can't be encoded: {brief(error)}"))
        return failed

    def _fails_on_silence(self, like: OwnedWindow) -> bool:
        """Whether the fault is the encoder's or the machine's: silence is nobody's fault."""
        silence = OwnedWindow(np.zeros_like(like.wave), like.owner, like.place)
        return bool(self._failing([silence]))

    def _launch(self, windows: list[OwnedWindow], seconds: dict[str, float]) -> Batch:
        samples = self._samples.take()
        busy: torch.cuda.Event | None = None
        try:
            if not self._on_gpu:
                return self._compute(windows, seconds, samples)
            # Blocking: a thread that waits for the card leaves its core to those that decode.
            marks = [torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(4)]
            busy = marks[1]
            return self._enqueue(windows, samples, marks)
        finally:
            self._samples.free(samples, busy)

    def _compute(
        self, windows: list[OwnedWindow], seconds: dict[str, float], samples: Buffer
    ) -> Batch:
        waves = [window.wave for window in windows]
        start = time.perf_counter()
        mel, counts = self.encoder.mel(
            waves, window=self.window, buffer=samples.first, each=self._each
        )
        middle = time.perf_counter()
        features = self.encoder.encode_mel(mel, counts, self.layers, self.window)
        if self._stored == "float16":  # half the memory while it waits; int8 needs all of the bits
            features = features.half()
        seconds["mel"] += middle - start
        seconds["encode"] += time.perf_counter() - middle
        return Batch(features, counts, [window.origin for window in windows], [])

    def _enqueue(
        self, windows: list[OwnedWindow], samples: Buffer, marks: list[torch.cuda.Event]
    ) -> Batch:
        encoder = self.encoder
        # The stream that the work is on: that of whatever device is current may be another's, and
        # would say the copy is done before it is.
        stream = torch.cuda.current_stream(encoder.device)
        marks[0].record(stream)
        # One shape for all batches of a length.
        mel, counts = encoder.mel(
            [window.wave for window in windows],
            pad_to=self.batch_size,
            window=self.window,
            buffer=samples.first,
            each=self._each,
        )
        marks[1].record(stream)
        features = encoder.encode_mel(mel, counts, self.layers, self.window)
        marks[2].record(stream)
        buffer = self._features.take()
        try:
            host = buffer.first(features.numel()).view(features.shape)
            host.copy_(features, non_blocking=True)
            marks[3].record(stream)
        except BaseException:
            self._features.free(buffer)
            raise
        origins = [window.origin for window in windows]
        return Batch(host, counts, origins, marks, self._features, buffer)
