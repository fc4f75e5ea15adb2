"""On a card events are recorded where the work is, whatever device is current. No card is needed.

.venv/bin/python -m pytest tests/extract/test_events.py
"""

import numpy as np
import pytest
from played_card import PlayedEncoder, PlayedEvent, play_card

from extract.encode import BatchEncoder, OwnedWindow, Pending
from omni.whisper.window import EXACT


def test_marks_are_on_the_encoders_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    play_card(monkeypatch)
    encode = BatchEncoder(PlayedEncoder(), "last", EXACT, 2)
    owner = Pending({"id": "u"}, 2)
    windows = [OwnedWindow(np.zeros(640, np.float32), owner, i) for i in range(2)]
    batch = encode(windows, {"mel": 0.0, "encode": 0.0}).batch
    assert batch is not None
    assert len(batch.marks) == 4
    assert PlayedEvent.streams == ["of cuda:1"] * 4
