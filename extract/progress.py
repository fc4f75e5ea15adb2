"""The progress of an extraction: one live line on a terminal, a plain line now and then elsewhere.

Must not know what is being extracted.
"""

import sys
import time

from tqdm import tqdm

from extract.pipeline import Stats

_PLAIN_EVERY_SECONDS = 10.0


class ProgressLine:
    """Call it with the run's stats after every batch; a context manager."""

    def __init__(self, split: str, utterances: int, audio_seconds: float) -> None:
        self._split, self._total, self._audio = split, utterances, audio_seconds
        self._start = self._last = time.monotonic()
        self._bar = tqdm(
            total=utterances,
            desc=split,
            unit="utt",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, stats: Stats) -> None:
        """Show where the run is."""
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.set_postfix_str(
                f"{self._speed(stats, now)}, {stage_shares(stats)}", refresh=False
            )
            self._bar.update(stats.utterances + stats.failures - self._bar.n)
        elif now - self._last >= _PLAIN_EVERY_SECONDS:
            self._last = now
            print(self._plain(stats, now), flush=True)

    def _plain(self, stats: Stats, now: float) -> str:
        done = stats.utterances + stats.failures
        left = (now - self._start) / max(done, 1) * (self._total - done)
        return (
            f"{self._split}: {done}/{self._total} utterances, {self._speed(stats, now)}, "
            f"{left:.0f} s left, {stage_shares(stats)}, {stats.failures} failed"
        )

    def _speed(self, stats: Stats, now: float) -> str:
        rate = stats.audio_seconds / max(now - self._start, 1e-9)
        return f"{stats.audio_seconds / 3600:.2f} of {self._audio / 3600:.2f} h, {rate:.1f} x real time"


def stage_shares(stats: Stats) -> str:
    """Share of each stage in the sum of all: `decode 2 %, mel 3 %, encode 94 %, write 1 %`."""
    total = sum(stats.seconds.values())
    if not total:
        return "starting"
    return ", ".join(
        f"{stage} {100 * value / total:.0f} %" for stage, value in stats.seconds.items()
    )
