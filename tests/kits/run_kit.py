"""The JSON of a run folder, whole, as the trainer writes it; a test changes what it is about."""

from typing import Any

from omni.bridge.projector import build_projector
from omni.nanochat import NanoChat
from train.options import TrainOptions

FINGERPRINT = "ab" * 32

# The command, in a process that SIGKILL ends at a step: inside the checkpoint if there is one, after the
# state's file and before the projector's.
DIES_AT_STEP = """
import os, signal, sys
from cli.train_projector import main
from omni import runs
from train import loop

target, step = int(sys.argv.pop(1)), 0
log_step, save_state = loop._log_step, runs.save_state

def log_and_die(session, *rest):
    global step
    log_step(session, *rest)
    step = session.step
    if step == target and step % 3:
        os.kill(os.getpid(), signal.SIGKILL)

def save_and_die(folder, state):
    save_state(folder, state)
    if step == target:
        os.kill(os.getpid(), signal.SIGKILL)

loop._log_step, runs.save_state = log_and_die, save_and_die
sys.exit(main())
"""


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
