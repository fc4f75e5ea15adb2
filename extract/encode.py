"""Batches of windows through the encoder, and which of them it fails on.

One recording that the encoder can't take is its own failure; what it fails on whatever it is given ends
the run. Must not know which shard a recording belongs to, or how it is written.
"""

import time
from dataclasses import dataclass, field

import numpy as np
import torch

from omni.errors import brief, is_out_of_memory
from omni.formats.manifest import Problem
from omni.formats.records import SampleMeta
from omni.whisper.encoder import Layers, WhisperEncoder
from omni.whisper.window import Window


@dataclass
class Pending:
    """An utterance whose windows are on their way through the encoder."""

    meta: SampleMeta
    windows_left: int
    pieces: dict[int, np.ndarray] = field(default_factory=dict)  # by the window's place in it
    problem: Problem = Problem.NONE
    reason: str = ""

    def take(self, place: int, piece: np.ndarray) -> None:
        """The features of one of its windows."""
        self.pieces[place] = piece
        self.windows_left -= 1

    def give_up(self, reason: str) -> None:
        """One of its windows can't be encoded."""
        self.problem, self.reason = Problem.NOT_ENCODED, reason
        self.windows_left -= 1


@dataclass(frozen=True)
class OwnedWindow:
    """At most 30 s of an utterance."""

    wave: np.ndarray
    owner: Pending
    place: int


@dataclass(frozen=True)
class Batch:
    """Encoded windows: features ([L,] sum of counts, d) on the host once `ready` was called."""

    features: torch.Tensor
    counts: list[int]
    windows: list[OwnedWindow]
    marks: list[torch.cuda.Event]  # on a GPU: before mel, after mel, after encoding, after the copy

    def ready(self, seconds: dict[str, float]) -> None:
        """Wait for a GPU, and add its time to the stages' seconds."""
        if self.marks:
            self.marks[-1].synchronize()
            seconds["mel"] += self.marks[0].elapsed_time(self.marks[1]) / 1000
            seconds["encode"] += self.marks[1].elapsed_time(self.marks[2]) / 1000


@dataclass(frozen=True)
class Encoded:
    """What became of the windows of a batch."""

    batch: Batch | None  # None if all of them failed
    failed: list[tuple[OwnedWindow, str]]  # with the reason


@dataclass(frozen=True)
class BatchEncoder:
    """The encoder as a run uses it."""

    encoder: WhisperEncoder
    layers: Layers
    window: Window
    batch_size: int

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
                self._launch([window], {"mel": 0.0, "encode": 0.0})
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
        encoder = self.encoder
        waves = [window.wave for window in windows]
        if encoder.device.type != "cuda":
            start = time.perf_counter()
            mel, counts = encoder.mel(waves, window=self.window)
            middle = time.perf_counter()
            features = encoder.encode_mel(mel, counts, self.layers, self.window)
            seconds["mel"] += middle - start
            seconds["encode"] += time.perf_counter() - middle
            return Batch(features, counts, windows, [])
        # The stream that the work is on: that of whatever device is current may be another's, and
        # would say the copy is done before it is.
        stream = torch.cuda.current_stream(encoder.device)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record(stream)
        # One shape for all batches of a length.
        mel, counts = encoder.mel(waves, pad_to=self.batch_size, window=self.window)
        marks[1].record(stream)
        features = encoder.encode_mel(mel, counts, self.layers, self.window)
        marks[2].record(stream)
        host = torch.empty(features.shape, dtype=torch.float16, pin_memory=True)
        host.copy_(features, non_blocking=True)
        marks[3].record(stream)
        return Batch(host, counts, windows, marks)
