"""The run folder `runs/<name>/`: what a training run leaves behind, written atomically.

    config.json                 projector sizes, template, the LM asked for, every training option
    provenance.json             fingerprint of the shards, LM hash, versions, seed, command
    projector-init.safetensors  before the first step (the report's "before")
    projector-last.safetensors  at the last checkpoint
    projector-best.safetensors  at the lowest CE on the selection split
    state.pt                    weights, optimiser, generator and stream position: all that resume needs
    metrics.jsonl               one JSON object a line, each with "step"
    curves.svg                  drawn at the end

A file either has its whole new content or its whole old one. Must not know how training works.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from omni.bridge.projector import Projector, build_projector
from omni.errors import OmniError
from omni.formats.files import atomic
from omni.nanochat.model import NanoChat

SCHEMA = 1
WHICH = ("best", "last", "init")


@dataclass(frozen=True)
class Run:
    """A run folder that was read. `config` and `provenance` are the two JSON files."""

    path: Path
    config: dict[str, Any]
    provenance: dict[str, Any]

    def projector(self, which: str = "best", device: str | torch.device = "cpu") -> Projector:
        """The projector of one checkpoint, in eval mode, without gradients.

        Args:
            which: "best", "last" or "init".

        Raises:
            OmniError: no such checkpoint, or its tensors don't fit `config`.
        """
        if which not in WHICH:
            raise OmniError(f"no checkpoint {which!r}", mend=f"choose one of {', '.join(WHICH)}")
        file = self.path / f"projector-{which}.safetensors"
        if not file.is_file():
            raise OmniError(
                "no such checkpoint", where=str(file), mend="train the run to its first checkpoint"
            )
        projector = build_projector(**self.config["projector"])
        try:
            projector.load_state_dict(safetensors.torch.load_file(file))
        except (RuntimeError, safetensors.SafetensorError) as error:
            raise OmniError(
                f"the projector file does not fit the run's config ({error})", where=str(file)
            ) from error
        return projector.requires_grad_(False).eval().to(device)

    @property
    def held_out(self) -> list[str]:
        """Ids of its training splits' utterances that it left out to be judged by; empty where it
        had splits that evaluate."""
        return list(self.provenance.get("held_out", []))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, oldest first; empty if there are none."""
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def check_features(self, fingerprint: str, where: str = "") -> None:
        """Refuse features of another encoder, layer choice or dtype than the run was trained on.

        Raises:
            OmniError: the fingerprints differ.
        """
        mine = self.provenance["fingerprint"]
        if fingerprint != mine:
            raise OmniError(
                f"features have fingerprint {fingerprint[:12]}, the run was trained on {mine[:12]}",
                where=where,
                mend="extract with the encoder, layers and dtype that the run's provenance names",
            )

    def check_lm(self, lm: NanoChat) -> None:
        """Refuse another LM than the run was trained against. On a GPU, where the LM is bf16, its
        bytes differ from those of a run trained on a CPU: then nothing can be told.

        Raises:
            OmniError: the hashes differ.
        """
        if (
            str(lm.dtype) == self.provenance["lm_dtype"]
            and lm.fingerprint() != self.provenance["lm_hash"]
        ):
            raise OmniError(
                "the LM is not the one the run was trained against",
                where=str(self.config["lm"]),
                mend="give that LM's place with --lm, or train anew",
            )


def load_run(path: str | Path) -> Run:
    """Read a run folder.

    Raises:
        OmniError: no run there, or one of another schema.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / "config.json").read_text())
        provenance = json.loads((folder / "provenance.json").read_text())
    except FileNotFoundError as error:
        raise OmniError(
            "no training run", where=str(folder), mend="make one with omni-train-projector"
        ) from error
    except json.JSONDecodeError as error:
        raise OmniError(f"damaged JSON ({error})", where=str(folder)) from error
    if config.get("schema") != SCHEMA:
        raise OmniError(f"a run of schema {config.get('schema')}, not {SCHEMA}", where=str(folder))
    return Run(folder, config, provenance)


def newest_run(root: str | Path = "runs") -> Run:
    """The run below `root` whose last checkpoint is the newest.

    Raises:
        OmniError: there is none.
    """
    files = list(Path(root).glob("*/projector-last.safetensors"))
    if not files:
        raise OmniError(
            "no training run found", where=str(root), mend="make one with omni-train-projector"
        )
    return load_run(max(files, key=lambda file: (file.stat().st_mtime, file)).parent)


def create_run(path: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> Run:
    """Make the folder and its two JSON files; returns it read back."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in (("provenance", provenance), ("config", {"schema": SCHEMA, **config})):
        with atomic(path / f"{name}.json") as out:
            out.write((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    return load_run(path)


def save_projector(path: Path, which: str, projector: Projector) -> None:
    """Write `projector-<which>.safetensors`; equal weights give equal bytes."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in projector.state_dict().items()}
    with atomic(path / f"projector-{which}.safetensors") as out:
        out.write(safetensors.torch.save(tensors))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state.pt`: tensors, numbers, strings, and lists and dicts of them, nothing else."""
    whole = io.BytesIO()  # torch would turn a full disk into an error without errno
    torch.save(dict(state), whole)
    with atomic(path / "state.pt") as out:
        out.write(whole.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read `state.pt` without running its pickle.

    Raises:
        OmniError: there is none, or it is damaged.
    """
    file = path / "state.pt"
    if not file.is_file():
        raise OmniError("nothing to resume", where=str(file), mend="start without --resume")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged zip or pickle can raise nearly anything
        raise OmniError(f"damaged state ({error})", where=str(file)) from error


def append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    """Add one JSON object to metrics.jsonl."""
    with (path / "metrics.jsonl").open("a") as out:
        out.write(json.dumps(line, sort_keys=True) + "\n")


def trim_metrics(path: Path, step: int) -> None:
    """Drop what was logged after `step`: a resumed run logs it again. A half line goes too."""
    file = path / "metrics.jsonl"
    kept = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):  # cut short by a kill
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    with atomic(file) as out:
        out.write("".join(kept).encode())
