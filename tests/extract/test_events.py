"""On a card events are recorded where the work is, whatever device is current. No card is needed.

.venv/bin/python -m pytest tests/extract/test_events.py
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from extract.encode import BatchEncoder, OwnedWindow, Pending
from omni.whisper.window import EXACT


class PlayedEvent:
    """Keeps the stream that it was recorded on."""

    seen: Sequence[str] = ()

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str | None = None) -> None:
        PlayedEvent.seen = [*PlayedEvent.seen, stream or "of the current device"]


class PlayedEncoder:
    """On cuda:1 while cuda:0 is current."""

    device = torch.device("cuda:1")

    def mel(self, waves: list[np.ndarray], **_: object) -> tuple[torch.Tensor, list[int]]:
        return torch.zeros(len(waves), 80, 4), [2] * len(waves)

    def encode_mel(self, mel: torch.Tensor, counts: list[int], *_: object) -> torch.Tensor:
        return torch.zeros(sum(counts), 3)


def test_marks_are_on_the_encoders_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    PlayedEvent.seen = ()
    monkeypatch.setattr(torch.cuda, "Event", PlayedEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"of {device}")
    real = torch.empty

    def empty(*shape: object, pin_memory: bool = False, **options: object) -> torch.Tensor:
        return real(*shape, **options)

    monkeypatch.setattr(torch, "empty", empty)
    encode = BatchEncoder(PlayedEncoder(), "last", EXACT, 2)
    owner = Pending({"id": "u"}, 2)
    windows = [OwnedWindow(np.zeros(640, np.float32), owner, i) for i in range(2)]
    batch = encode(windows, {"mel": 0.0, "encode": 0.0}).batch
    assert batch is not None
    assert len(batch.marks) == 4
    assert PlayedEvent.seen == ["of cuda:1"] * 4
