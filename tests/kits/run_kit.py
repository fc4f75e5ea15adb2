"""The JSON of a run folder, whole, as the trainer writes it; a test changes what it is about."""

from typing import Any

from omni.bridge.projector import build_projector
from omni.nanochat import NanoChat
from train.options import TrainOptions

FINGERPRINT = "ab" * 32


def run_config(projector: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """config.json without its schema, which `create_run` adds."""
    return {
        "projector": projector or build_projector(d_in=8, n_embd=16, hidden=8).config,
        "template": {"kind": "sft", "prompt": " Repeat that.", "audio_first": False},
        "lm": "demo",
        "select": "dev-x",
        "train": TrainOptions(steps=10).to_json(),
        **changes,
    }


def run_provenance(lm: NanoChat | None = None, **changes: Any) -> dict[str, Any]:
    """provenance.json of a run against `lm`."""
    return {
        "fingerprint": FINGERPRINT,
        "fingerprint_config": {"encoder": "cd" * 32, "layers": "last", "dtype": "float16"},
        "splits": [
            {"split": "train-x", "role": "train", "n": 40},
            {"split": "dev-x", "role": "eval", "n": 5},
            {"split": "test-x", "role": "eval", "n": 6},
        ],
        "held_out": [],
        "longest_seconds": 4.5,
        "lm_hash": lm.fingerprint() if lm else "ef" * 32,
        "lm_kind": "sft",
        "lm_dtype": "torch.float32",
        "seed": 0,
        "command": ["omni-train-projector"],
        "versions": {"python": "3.11"},
        **changes,
    }
