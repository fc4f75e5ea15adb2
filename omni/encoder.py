"""What an encoder promises to the rest: whose weights, how wide, how deep, how many frames a second.

Everything that turns frames into seconds asks here, so that an encoder with another rate is one
change. Imports nothing heavy: commands show `DEFAULT_ENCODER` in their help. Must not know how any
encoder computes.
"""

from collections.abc import Mapping
from typing import Any, Protocol

DEFAULT_ENCODER = "openai/whisper-base"
WHISPER_FRAMES_PER_SECOND = 50  # hop of 10 ms, then a convolution of stride 2


class Encoder(Protocol):
    """hash names the weights whatever their source; d_model is the width of a frame."""

    hash: str
    d_model: int
    n_layers: int
    frames_per_second: float


def rate_config(encoder: Encoder) -> dict[str, float]:
    """What a fingerprint's config holds of the frame rate: nothing where it is Whisper's.

    Shards made before there was another rate keep their fingerprint so.
    """
    rate = encoder.frames_per_second
    return {} if rate == WHISPER_FRAMES_PER_SECOND else {"frames_per_second": rate}


def frames_per_second(config: Mapping[str, Any]) -> float:
    """The frame rate of features, from the `fingerprint_config` of their shards or of a run."""
    return float(config.get("frames_per_second", WHISPER_FRAMES_PER_SECOND))
