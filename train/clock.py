"""How long steps take, and the share of it spent waiting for data. Must not know what a step does."""

import time
from collections.abc import Iterator

from train.stream import Packed


class Clock:
    """Time of steps, and the share of it spent waiting for data."""

    def __init__(self) -> None:
        self.begin: float | None = None
        self.waited = self.worked = 0.0
        self.step_seconds = 0.0

    def wait(self, stream: Iterator[Packed]) -> Packed:
        """The next batch. The first one's wait is start-up and isn't counted."""
        asked = time.monotonic()
        packed = next(stream)
        if self.begin is not None:
            self.waited += time.monotonic() - asked
        else:
            self.begin = time.monotonic()
        return packed

    def lap(self) -> None:
        """A step has ended."""
        assert self.begin is not None
        self.step_seconds = time.monotonic() - self.begin
        self.worked += self.step_seconds
        self.begin = time.monotonic()

    def restart(self) -> None:
        """What happened since the lap (evaluation, checkpoint) is no part of a step."""
        self.begin = time.monotonic()

    @property
    def share(self) -> float:
        """Of the steps' time that went into waiting, so far."""
        return self.waited / self.worked if self.worked else 0.0
