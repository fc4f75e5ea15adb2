"""What `omni-eval --retention` says of a split: its WER beside that of the run that this one started from."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli._loaded import Loaded

if TYPE_CHECKING:
    from omni.evaluation.figures import Figures, Kept
    from omni.formats.shards import Sample
    from omni.runs import Run


def parent_of(run: "Run") -> "Run | None":
    """The run that this one started from; None, and a line, if it started from none.

    Raises:
        OmniError: it is gone, or its weights are others by now.
    """
    import hashlib

    from omni.errors import OmniError
    from omni.runs import load_run

    started = run.provenance.get("parent")
    if started is None:
        print("no run to compare transcripts with: this one started from none")
        return None
    parent = load_run(started["path"])
    file = parent.path / f"projector-{started['which']}.safetensors"
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "none"
    if found != started["projector"]:
        raise OmniError(
            f"the run that this one started from has another projector by now ({found[:12]})",
            str(file),
            "leave --retention out, or put the run back",
        )
    return parent


def kept(
    parent: "Run",
    loaded: Loaded,
    samples: Sequence["Sample"],
    figures: "Figures",
    args: argparse.Namespace,
) -> "Kept | None":
    """Error rates of the same utterances before and after; None where nothing was transcribed or said.

    Args:
        figures: of the run on these samples; the utterances that it transcribed are compared.
    """
    from omni.bridge.turns import Template
    from omni.encoder import frames_per_second
    from omni.evaluation.figures import Kept
    from omni.evaluation.retention import word_error_rate

    decoded = [u for u in figures["utterances"] if u.get("words")]
    words = sum(u["words"] for u in decoded)
    if not words:
        return None
    ids = {u["id"] for u in decoded}
    started = loaded.run.provenance["parent"]
    own = loaded.lm.lora
    try:
        parent.wear(loaded.lm, started["which"])
        before = word_error_rate(
            loaded.lm, loaded.tok, parent.projector(started["which"], loaded.device),
            [s for s in samples if s.meta["id"] in ids], Template(**parent.config["template"]),
            args.batch_size, args.language or loaded.run.language, frames_per_second(loaded.features),
        )  # fmt: skip
    finally:
        loaded.lm.wear(own)
    after = sum(sum(u["errors"]) for u in decoded) / words
    return None if before is None else Kept(parent=str(parent.path), before=before, after=after)
