"""What Whisper's own decoder makes of the features that the run was judged on.

Takes what lies on this machine and downloads nothing. Must not know about tables or pages.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from omni.bridge.turns import Template
from omni.errors import OmniError
from omni.evaluation.cascade import add_cascade
from omni.evaluation.figures import Figures
from omni.formats.shards import Sample
from omni.nanochat import NanoChat, Tokenizer
from omni.whisper.decoder import load_decoder

MAX_CASCADE = 64  # utterances: each takes a third of a second on a CPU


class Cascade(NamedTuple):
    """Figures with Whisper's own transcripts, or None; in words where they come from, or why not."""

    figures: Figures | None
    about: str


def hear(
    evaluated: Figures,
    lm: NanoChat,
    tok: Tokenizer,
    template: Template,
    samples: Sequence[Sample],
    features: Mapping[str, Any],
    encoder: str,
    device: str,
    language: str,
    batch: int = 32,
) -> Cascade:
    """The cascade on the leading samples.

    Args:
        evaluated: figures of all of them, which stay as they are.
        features: the `fingerprint_config` of their shards.
        encoder: folder or hub id of what made them.
        batch: transcripts at once.
    """
    try:
        decoder = load_decoder(encoder, features, device, network=False, language=language)
    except OmniError as error:
        return Cascade(None, f"none: {error}")
    leading = samples[:MAX_CASCADE]
    ids = {x.meta["id"] for x in leading}
    figures = evaluated.copy()
    figures["utterances"] = [u.copy() for u in evaluated["utterances"] if u["id"] in ids]
    figures["intervals"] = evaluated["intervals"].copy()
    add_cascade(figures, lm, tok, template, leading, decoder.transcribe, batch, language)
    return Cascade(figures, f"decoder of {encoder}, {len(leading)} utterances")
