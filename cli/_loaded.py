"""A run with its models in memory, as the commands that judge it use them."""

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omni.bridge.projector import Projector
    from omni.bridge.turns import Template
    from omni.nanochat import NanoChat, Tokenizer
    from omni.runs import Run


@dataclass(frozen=True)
class Loaded:
    """One checkpoint of a run, on a device."""

    run: "Run"
    lm: "NanoChat"
    tok: "Tokenizer"
    projector: "Projector"
    template: "Template"
    device: str

    @property
    def features(self) -> dict[str, Any]:
        """What the run's features are."""
        return dict(self.run.provenance["fingerprint_config"])


def load_models(args: argparse.Namespace, run: "Run", device: str) -> Loaded:
    """The LM in the run's adapters and the projector that the options name, checked against the run.

    Args:
        args: with `lm`, `lm_dtype`, `checkpoint` and `lora_scale`.

    Raises:
        OmniError: another LM, no such checkpoint, a scale without adapters, no memory for it.
    """
    from omni.bridge.turns import Template
    from omni.device import pick_dtype
    from omni.errors import enough_memory
    from omni.nanochat import load_checkpoint

    with enough_memory("the LM", "give --device cpu, or a card with more memory"):
        lm, tok, _ = load_checkpoint(
            args.lm or run.config["lm"], device, dtype=pick_dtype(args.lm_dtype, device)
        )
        run.check_lm(lm, args.lm or "")
        projector = run.projector(args.checkpoint, device)
        run.wear(lm, args.checkpoint, args.lora_scale)
    template = Template(**run.config["template"])
    return Loaded(run, lm, tok, projector, template, device)
