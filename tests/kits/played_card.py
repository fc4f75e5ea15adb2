"""The pipeline's path for a card, played on the CPU: pinned memory, streams and events that keep a record.

Nothing is computed late here; what a real card would still be doing is told by the events.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch

from omni.whisper.encoder import frame_count
from omni.whisper.window import EXACT, Window


class PlayedEvent:
    """Keeps the streams that events were recorded on, and which of them were waited for."""

    streams: ClassVar[list[str]] = []
    waited: ClassVar[list["PlayedEvent"]] = []

    def __init__(self, enable_timing: bool, blocking: bool) -> None:
        assert enable_timing
        assert blocking

    def record(self, stream: str | None = None) -> None:
        PlayedEvent.streams.append(stream or "of the current device")

    def synchronize(self) -> None:
        PlayedEvent.waited.append(self)

    def elapsed_time(self, other: "PlayedEvent") -> float:
        """Milliseconds."""
        return 1.0


class PlayedEncoder:
    """On cuda:1 while cuda:0 is current. Features: each frame's first sample, and its number."""

    device = torch.device("cuda:1")
    dtype = torch.float32
    name = source = "played"
    hash = "0" * 64
    d_model, n_layers, n_mels, frames_per_second = 2, 1, 80, 50

    def mel(
        self,
        waves: Sequence[np.ndarray],
        pad_to: int | None = None,
        window: Window = EXACT,
        buffer: Callable[[int], torch.Tensor] = torch.empty,
        each: Callable[..., object] = map,
    ) -> tuple[torch.Tensor, list[int]]:
        """The samples through the buffer, (B, n), as they would go to a card."""
        counts = [frame_count(len(wave)) for wave in waves]
        rows, n = max(pad_to or 0, len(waves)), 320 * max(counts)
        samples = buffer(rows * n).view(rows, n)
        samples.fill_(np.nan)
        for row, wave in zip(samples, waves, strict=False):
            row[: len(wave)] = torch.from_numpy(wave)
        return samples.clone(), counts

    def encode_mel(self, mel: torch.Tensor, counts: list[int], *_: object) -> torch.Tensor:
        """(sum of counts, 2)."""
        rows = [
            torch.stack([row[::320][:n], torch.arange(n, dtype=torch.float32)], dim=1)
            for row, n in zip(mel, counts, strict=False)
        ]
        return torch.cat(rows)


def play_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on torch has a card, as far as the pipeline asks."""
    PlayedEvent.streams, PlayedEvent.waited = [], []
    monkeypatch.setattr(torch.cuda, "Event", PlayedEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"of {device}")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "played")
    real = torch.empty

    def empty(*shape: object, pin_memory: bool = False, **options: object) -> torch.Tensor:
        return real(*shape, **options)

    monkeypatch.setattr(torch, "empty", empty)
