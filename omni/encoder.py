"""What an encoder promises to the rest: whose weights, how wide, how deep, how many frames a second.

Everything that turns frames into seconds, or into the most that can be said in them, asks here, so
that an encoder with another rate is one change. Imports nothing heavy: commands show `DEFAULT_ENCODER` in their help. Must not know how any
encoder computes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

DEFAULT_ENCODER = "openai/whisper-base"
WHISPER_FRAMES_PER_SECOND = 50  # hop of 10 ms, then a convolution of stride 2
# Nobody says more. Fast talk is 5 words a second: some 25 letters in the scripts that write most
# of them, and in none more than a vocabulary of whole words has tokens for. The two bounds hold
# together: tokens of several letters soon pass the second, tokens of one byte or less than a
# letter (a byte-level vocabulary, Chinese in an English one) get four a letter if they need them.
TOKENS_PER_SECOND = 12
CHARACTERS_PER_SECOND = 25
SLACK = 8  # what the shortest recording may hold


class RateConfig(TypedDict, total=False):
    """Part of a shard's `FeatureConfig`."""

    frames_per_second: float


class Encoder(Protocol):
    """hash names the weights whatever their source; d_model is the width of a frame."""

    hash: str
    d_model: int
    n_layers: int
    frames_per_second: float


def rate_config(encoder: Encoder) -> RateConfig:
    """What a fingerprint's config holds of the frame rate: nothing where it is Whisper's.

    Shards made before there was another rate keep their fingerprint so.
    """
    rate = encoder.frames_per_second
    return {} if rate == WHISPER_FRAMES_PER_SECOND else {"frames_per_second": rate}


def frames_per_second(config: Mapping[str, Any]) -> float:
    """The frame rate of features, from the `fingerprint_config` of their shards or of a run."""
    return float(config.get("frames_per_second", WHISPER_FRAMES_PER_SECOND))


@dataclass(frozen=True)
class Bound:
    """When a decode that does not end by itself has said all that its audio can hold."""

    tokens: int
    characters: int = 0

    def reached(self, n_tokens: int, text: Callable[[], str]) -> bool:
        """Whether both are used up; `text` is asked for only when the tokens are."""
        return n_tokens >= self.tokens and len(text()) >= self.characters


def most_said(n_frames: int, rate: float = WHISPER_FRAMES_PER_SECOND) -> Bound:
    """The most that can be said in so many frames."""
    return Bound(
        SLACK + int(n_frames * TOKENS_PER_SECOND // rate),
        SLACK + int(n_frames * CHARACTERS_PER_SECOND // rate),
    )
