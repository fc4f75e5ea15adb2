"""Where figures go besides the disk: wandb, its project and whether it is online.

Must not know what is tracked.
"""

import os
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from omni.errors import OmniError

WANDB_PROJECT = "nanochat-omni-audio"
WANDB_MODES = ("auto", "online", "offline", "disabled")


def wandb_mode(asked: str) -> str:
    """The mode to use: with "auto", WANDB_MODE if set, else online with a key, else offline.

    Raises:
        OmniError: "online" without a key: wandb would stop and ask for one.
    """
    if asked not in WANDB_MODES:
        raise OmniError(f"no wandb mode {asked!r}", mend=f"choose one of {', '.join(WANDB_MODES)}")
    if asked == "auto":
        asked = os.environ.get("WANDB_MODE", "online" if _has_key() else "offline")
    if asked == "online" and not _has_key():
        raise OmniError(
            "wandb has no key", "--wandb online", "run `wandb login`, or use --wandb offline"
        )
    return asked


def start_wandb(path: Path, config: Mapping[str, Any], asked: str) -> Any:
    """A wandb run, or None when disabled."""
    mode = wandb_mode(asked)
    if mode == "disabled":
        return None
    import wandb  # seconds: only if it is used

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    return wandb.init(
        project=WANDB_PROJECT,
        name=path.name,
        id=path.name.replace("/", "-"),
        resume="allow" if mode == "online" else None,
        dir=str(path),
        config=dict(config),
        mode=mode,  # type: ignore[arg-type]
        settings=settings,
    )


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, NetrcParseError):
        return False
