"""How much silence the encoder hears after a recording: up to 30 s, as it was trained, or less.

Whisper attends to the silence that pads a window, so a shorter one is faster and not the same: its
features differ by 6 to 35 % from the exact ones. Which was used is part of the shards' fingerprint,
so the two never mix. Must not know about models or shards.
"""

import math
from dataclasses import dataclass
from typing import Any

from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.errors import OmniError
from omni.whisper.mel import WINDOW_FRAMES, WINDOW_SECONDS

FULL_FRAMES = WINDOW_FRAMES // 2  # the encoder's, after the convolution of stride 2
STEP_SECONDS = 1  # fitted windows end at whole seconds: few lengths, so that equal ones batch
DEFAULT_MARGIN = 2.0


@dataclass(frozen=True)
class Window:
    """A rule that gives each recording its window; all of a window's shape follows from its length.

    margin: seconds of silence after the speech at least, short of 30 s in all; None: always 30 s.
    """

    margin: float | None = None

    def length(self, count: int) -> int:
        """Frames to encode for `count` frames of speech: `count` <= it <= 1500."""
        if self.margin is None:
            return FULL_FRAMES
        step = STEP_SECONDS * WHISPER_FRAMES_PER_SECOND
        return min(FULL_FRAMES, -(-(count + self._margin_frames()) // step) * step)

    def most_kept(self, length: int) -> int | None:
        """Frames of speech at most in a fitted window of that length; None: the batch must say.

        What a fitted window computes depends on its length alone, not on what shares its batch.
        """
        if self.margin is None:
            return None
        return length if length == FULL_FRAMES else length - self._margin_frames()

    def config(self) -> str | dict[str, int | float]:
        """As the fingerprint holds it: "30", or the margin and the step in seconds."""
        if self.margin is None:
            return str(WINDOW_SECONDS)
        return {"fit": float(self.margin), "step": float(STEP_SECONDS)}

    def _margin_frames(self) -> int:
        return math.ceil((self.margin or 0) * WHISPER_FRAMES_PER_SECOND)


EXACT = Window()


def make_window(name: str, margin: float | None = None) -> Window:
    """The window of `--window 30|fit` and `--margin`.

    Raises:
        OmniError: a margin that makes no sense, or one for the exact window.
    """
    if name == str(WINDOW_SECONDS):
        if margin is not None:
            raise OmniError("the 30 s window has no margin", f"--margin {margin:g}", "--window fit")
        return EXACT
    if name != "fit":
        raise OmniError("a window is 30 or fit", f"--window {name}")
    margin = DEFAULT_MARGIN if margin is None else margin
    if not 0 <= margin <= WINDOW_SECONDS:
        raise OmniError(f"a margin is from 0 to {WINDOW_SECONDS} seconds", f"--margin {margin:g}")
    return Window(margin)


def window_from_config(config: Any, where: str = "") -> Window:
    """The window that a fingerprint's config names.

    Raises:
        OmniError: one that this program does not make.
    """
    margin = config.get("fit") if isinstance(config, dict) else None
    if isinstance(margin, int | float) and 0 <= margin <= WINDOW_SECONDS:
        window = Window(float(margin))
    else:
        window = EXACT
    if window.config() != config:
        raise OmniError(
            f"the features have window {config!r}, which this program does not make",
            where,
            "extract and train again, or use the version that made them",
        )
    return window
