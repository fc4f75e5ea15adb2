"""What a run folder already holds, and whether this start may go on from it; what a new one is told.

The folder is rank 0's to look at. Must not know how a run is trained.
"""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from omni import runs
from omni.device import LM_DTYPES
from omni.errors import OmniError
from omni.formats.run_files import Content, Provenance
from omni.nanochat.config import ModelMeta
from train.content import changes
from train.data import TrainingData
from train.options import TrainOptions


class Seen(NamedTuple):
    """What a rank has read from its own disks, for comparison with the others."""

    lm_hash: str
    fingerprint: str
    content: Content
    steps: int


def refuse_other_inputs(seen: Sequence[Seen]) -> None:
    """All ranks train the same LM on the same data.

    Args:
        seen: by each rank, in order.

    Raises:
        OmniError: one of them has read something else than rank 0.
    """
    first = seen[0]
    for rank, other in enumerate(seen):
        if other.lm_hash != first.lm_hash:
            what = f"the LM has hash {other.lm_hash[:12]}, that of rank 0 {first.lm_hash[:12]}"
        elif other != first:
            found = "; ".join(changes(first.content, other.content)) or "another choice of it"
            what = f"other training data than rank 0 ({found})"
        else:
            continue
        raise OmniError(
            what, f"rank {rank}", "give every machine the same files, then start all ranks again"
        )


def refuse_overwriting(folder: Path, resume: bool) -> None:
    """
    Raises:
        OmniError: there is a run, and nobody asked to go on with it.
    """
    if not resume and (folder / "config.json").exists():
        raise OmniError("there is a run already", str(folder), "add --resume, or another --run")


def resumable(
    options: TrainOptions, data: TrainingData, folder: Path, dtype: str, device: str
) -> runs.RunState | None:
    """The state to go on from, or None to start.

    Args:
        dtype: the LM's, as torch names it. device: "cpu" or "cuda".

    Raises:
        OmniError: it was begun on other data, with another recipe, in another dtype or on another kind of
            device; it has lost its state.
    """
    if not os.path.lexists(folder / "state.pt"):
        _refuse_without_state(folder)
        return None
    run = runs.load_run(folder)
    then = run.provenance.get("content", data.content)  # a run may be older than this record
    changed = changes(then, data.content)
    if changed:
        raise OmniError(
            f"can't resume on other training data ({'; '.join(changed)})",
            where=str(folder),
            mend="give --shards the data of the first start, or choose another --run",
        )
    differences = options.differences(run.config["train"])
    if differences:
        raise OmniError(
            f"can't resume with other options ({'; '.join(differences)})",
            where=str(folder),
            mend="repeat the options of the first start, or choose another --run",
        )
    begun_on = run.provenance.get("device", device)  # a run may be older than this record
    if not options.allow_mixed:
        _same_dtype(run, dtype)
        _same_device(run, begun_on, device)
    state = runs.load_state(folder)
    if (run.provenance["lm_dtype"], begun_on) != (dtype, device):
        runs.record_arithmetic(run, dtype, device)
    return state


def _same_device(run: runs.Run, begun: str, device: str) -> None:
    """Noise is drawn where the features are, and each kind of device draws its own."""
    if begun != device:
        raise OmniError(
            f"the run was begun on {begun}, this is {device}", str(run.path),
            f"give --device {begun}, or --allow-mixed (other last bits, other noise), or another --run",
        )  # fmt: skip


def _same_dtype(run: runs.Run, dtype: str) -> None:
    begun = run.provenance["lm_dtype"]
    if begun == dtype:
        return
    names = {f"torch.{long}": short for short, long in LM_DTYPES.items()}
    then, now = names.get(begun, begun), names.get(dtype, dtype)
    raise OmniError(
        f"the run was begun with its LM in {then}, this is {now}",
        where=str(run.path),
        mend=f"give --lm-dtype {then}, or --allow-mixed, or choose another --run",
    )


def _refuse_without_state(folder: Path) -> None:
    """Without a state a run was not begun, or was killed before its first checkpoint; if it has one,
    starting anew would write over it."""
    last = folder / "projector-last.safetensors"
    if os.path.lexists(last):
        raise OmniError(
            "this run has a checkpoint and no state.pt to go on from", str(folder),
            "copy state.pt back, or choose another --run",
        )  # fmt: skip


def provenance(
    data: TrainingData,
    lm_hash: str,
    dtype: str,
    device: str,
    meta: ModelMeta,
    options: TrainOptions,
    command: Sequence[str],
) -> Provenance:
    """provenance.json of a new run.

    Args:
        dtype: the LM's, as torch names it. device: "cpu" or "cuda". command: what the user typed.
    """
    packages = ("nanochat-omni", "torch", "transformers", "webdataset", "numpy")
    return {
        "fingerprint": data.fingerprint,
        "fingerprint_config": data.fingerprint_config,
        "splits": data.splits,
        "held_out": list(data.held_out),
        "content": data.content,
        "longest_seconds": data.longest_seconds,
        "lm_hash": lm_hash,
        "lm_kind": meta["kind"] or "",
        "lm_dtype": dtype,
        "device": device,
        "seed": options.seed,
        "command": list(command),
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version()},
    }
