"""The run folder `runs/<name>/`: what a training run leaves behind, written atomically.

    config.json                 projector sizes, template, the LM asked for, every training option
    provenance.json             fingerprint of the shards, LM hash, versions, seed, command
    projector-init.safetensors  before the first step
    projector-untrained.safetensors  of a run that started from another: that one's before any training
    projector-last.safetensors  at the last checkpoint
    projector-best.safetensors  at the lowest CE on the selection split
    lora-{last,best}.safetensors  adapters of the LM, where there are any, at the same steps
    state.pt                    weights, optimiser, generator and stream position: all that resume needs
    metrics.jsonl               one JSON object a line, each with "step"
    curves.svg                  drawn at the end

A file either has its whole new content or its whole old one. Must not know how training works.
"""

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

import safetensors.torch
import torch
from pydantic import ConfigDict, Field, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from omni.bridge.projector import Projector, build_projector
from omni.errors import OmniError
from omni.evaluation.figures import ENGLISH
from omni.formats.checked import check_value, parse_json
from omni.formats.files import atomic, write_whole
from omni.formats.run_files import (
    SCHEMA,
    MetricsLine,
    Provenance,
    RunConfig,
    read_metrics,
    read_run_files,
)
from omni.formats.tensors import check_finite, read_tensors, read_torch
from omni.nanochat.lora import Lora, load_lora, save_lora
from omni.nanochat.model import NanoChat

WHICH = ("best", "last", "init")  # of every run; init: as it began, after another one or not
UNTRAINED = "untrained"  # of a run that began after another
ROOTS = ("runs", "demo/runs")  # where a run is looked for: the user's own, then the demo's


@with_config(ConfigDict(extra="allow", arbitrary_types_allowed=True))
class RunState(TypedDict):
    """What state.pt holds. position: pass and batch of the next step. eval: JSON of the figures."""

    step: Annotated[int, Field(ge=0)]
    position: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
    best: float
    projector: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: Tensor
    eval: str
    world: Annotated[int, Field(ge=1)]
    scale: NotRequired[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    lora: NotRequired[dict[str, Tensor]]


@dataclass(frozen=True)
class Run:
    """A run folder that was read. `config` and `provenance` are the two JSON files, checked."""

    path: Path
    config: RunConfig
    provenance: Provenance

    def projector(self, which: str = "best", device: str | torch.device = "cpu") -> Projector:
        """The projector of one checkpoint, in eval mode, without gradients.

        Args:
            which: "best", "last", "init" or "untrained".

        Raises:
            OmniError: no such checkpoint, its tensors don't fit `config`, or are not finite.
        """
        if which not in (*WHICH, UNTRAINED):
            raise OmniError(f"no checkpoint {which!r}", mend=f"choose one of {', '.join(WHICH)}")
        file = self.path / f"projector-{which}.safetensors"
        if not file.exists():
            raise OmniError(
                "no such checkpoint", where=str(file), mend="train the run to its first checkpoint"
            )
        tensors = read_tensors(file)
        try:
            with torch.device("meta"):  # nothing is allocated for sizes that the tensors don't have
                projector = build_projector(**self.config["projector"])
        except RuntimeError as error:
            raise OmniError(
                "the projector's sizes are beyond any tensor", str(self.path / "config.json")
            ) from error
        _check_fit(projector, tensors, str(file))
        check_finite(tensors, str(file))
        own = {key: tensor.float().clone() for key, tensor in tensors.items()}
        projector.load_state_dict(own, assign=True)
        return projector.requires_grad_(False).eval().to(device)

    def untrained(self, device: str | torch.device = "cpu") -> Projector:
        """The projector before any training: that of the first of the runs that this one goes back to.

        Raises:
            OmniError: as `projector`.
        """
        before = (self.path / f"projector-{UNTRAINED}.safetensors").exists()
        return self.projector(UNTRAINED if before else "init", device)

    def load_adapters(
        self, lm: NanoChat, which: str = "best", dtype: torch.dtype = torch.float32
    ) -> Lora | None:
        """The adapters of one checkpoint, for the LM to wear (`NanoChat.wear`); None if the run has
        none, or for "init".

        Args:
            dtype: of their weights; the LM's own spares casts, fp32 can go on learning.

        Raises:
            OmniError: they are gone, damaged, of another LM or of another rank than `config` says.
        """
        mine = self.config.get("lora")
        if mine is None or which == "init":
            return None
        file = self.path / f"lora-{which}.safetensors"
        lora = load_lora(file, lm, self.provenance["lm_hash"], dtype)
        found = (lora.rank, lora.alpha, lora.targets)
        if found != (mine["rank"], mine["alpha"], tuple(mine["targets"])):
            raise OmniError(
                f"adapters of rank {lora.rank} and alpha {lora.alpha:g}, the run's config says "
                f"{mine['rank']} and {mine['alpha']:g}", str(file),
                "copy the run again: config and adapters are of two runs",
            )  # fmt: skip
        return lora

    def wear(self, lm: NanoChat, which: str = "best", scale: float = 1.0) -> bool:
        """Dress the LM in the adapters of one checkpoint, in eval mode; whether there are any.

        Args:
            scale: of what they say; 0: nothing, 1: as trained.

        Raises:
            OmniError: as `load_adapters`; a scale for adapters that are not there.
        """
        lora = self.load_adapters(lm, which, lm.dtype)
        if lora is None and scale != 1.0:
            raise OmniError(
                f"no adapters to scale by {scale:g}", str(self.path), "leave --lora-scale out"
            )
        if lora is not None:
            lora.scale = scale
        lm.wear(lora)
        return lora is not None

    @property
    def held_out(self) -> list[str]:
        """Ids of its training splits' utterances that it left out to be judged by; empty where it
        had splits that evaluate."""
        return list(self.provenance.get("held_out", []))

    def chosen_by(self, which: str = "best") -> str:
        """The split whose CE chose this checkpoint, which flatters its figures there; "" if none did."""
        return self.config["select"] if which == "best" else ""

    def clean_splits(self, which: str = "best") -> list[str]:
        """Evaluation splits of the run that had no say in this checkpoint."""
        judges = [split["split"] for split in self.provenance["splits"] if split["role"] == "eval"]
        return [name for name in judges if name != self.chosen_by(which)]

    @property
    def language(self) -> str:
        """Code of the language its transcripts are scored in; runs made before there was a choice
        are English."""
        return self.config["train"].get("language", ENGLISH)

    def metrics(self) -> list[MetricsLine]:
        """The lines of metrics.jsonl, oldest first; a half last line is left out.

        Raises:
            OmniError: another line is damaged.
        """
        return [line for _, line in read_metrics(self.path / "metrics.jsonl")]

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

    def check_lm(self, lm: NanoChat, where: str = "") -> None:
        """Refuse another LM than the run was trained against, whatever the device and dtype of either.

        Args:
            where: the place that the LM came from, if not the run's own.

        Raises:
            OmniError: the fingerprints differ, or the projector was made for other sizes.
        """
        place = where or self.config["lm"]
        ours, theirs = lm.fingerprint(), self.provenance["lm_hash"]
        if ours != theirs:
            raise OmniError(
                f"the LM has hash {ours[:12]}, the run was trained with {theirs[:12]}",
                where=place,
                mend="give the checkpoint of the run's training with --lm, or train anew",
            )
        sizes = {"n_embd": lm.config.n_embd, "n_ve": lm.n_ve, "kv_dim": lm.kv_dim}
        mine = {"n_embd": self.config["projector"]["n_embd"],
                "n_ve": self.config["projector"]["n_ve"],
                "kv_dim": self.config["projector"]["kv_dim"]}  # fmt: skip
        if mine != sizes:
            raise OmniError(
                f"the projector is for an LM of {mine}, this one has {sizes}",
                where=str(self.path / "config.json"),
                mend="copy the run again, or train anew",
            )


def load_run(path: str | Path) -> Run:
    """Read a run folder.

    Raises:
        OmniError: no run there, one of another schema, or damaged files.
    """
    folder = Path(path)
    return Run(folder, *read_run_files(folder))


def newest_run(root: str | Path | None = None) -> Run:
    """The run whose last checkpoint is the newest.

    Args:
        root: where it lies; None looks in each of `ROOTS` until one has a run, and says so in a
            line if that is not the first.

    Raises:
        OmniError: there is none.
    """
    roots = [Path(root)] if root is not None else [Path(name) for name in ROOTS]
    for place in roots:
        found = []
        for file in place.glob("*/projector-last.safetensors"):
            try:
                found.append((file.stat().st_mtime, file))
            except OSError:
                continue  # deleted since, a dangling link
        if found:
            folder = max(found)[1].parent
            if place != roots[0]:
                print(f"no run below {roots[0]}: {folder} is used", file=sys.stderr)
            return load_run(folder)
    raise OmniError(
        "no training run found",
        where=" and ".join(map(str, roots)),
        mend="make one with omni-train-projector, or name its folder",
    )


def create_run(path: Path, config: RunConfig, provenance: Provenance) -> Run:
    """Make the folder and its two JSON files; returns it read back."""
    for name, content in (("provenance", provenance), ("config", {"schema": SCHEMA, **config})):
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        write_whole(path / f"{name}.json", text.encode())
    return load_run(path)


def record_arithmetic(run: Run, dtype: str, device: str) -> None:
    """The LM computes in another dtype or on another kind of device from here on: provenance says so,
    and what it was before."""
    then = dict(run.provenance)
    then["lm_dtypes_before"] = [*run.provenance.get("lm_dtypes_before", []), then["lm_dtype"]]
    then["devices_before"] = [*run.provenance.get("devices_before", []), then.get("device", "")]
    text = json.dumps({**then, "lm_dtype": dtype, "device": device}, indent=2, sort_keys=True)
    write_whole(run.path / "provenance.json", f"{text}\n".encode())


def save_projector(path: Path, which: str, projector: Projector) -> None:
    """Write `projector-<which>.safetensors`; equal weights give equal bytes."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in projector.state_dict().items()}
    write_whole(path / f"projector-{which}.safetensors", safetensors.torch.save(tensors))


def save_adapters(path: Path, which: str, lora: Lora | None, base: str) -> None:
    """Write `lora-<which>.safetensors`, if there are any. base: fingerprint of the LM."""
    if lora is not None:
        save_lora(lora, path / f"lora-{which}.safetensors", base)


def save_state(path: Path, state: RunState) -> None:
    """Write `state.pt`: tensors, numbers, strings, and lists and dicts of them, nothing else."""
    whole = io.BytesIO()  # torch would turn a full disk into an error without errno
    torch.save(dict(state), whole)
    with atomic(path / "state.pt") as out:
        out.write(whole.getbuffer())


def load_state(path: Path) -> RunState:
    """Read `state.pt` without running its pickle.

    Raises:
        OmniError: there is none, it is damaged, or a field is missing or of another type.
    """
    file = path / "state.pt"
    if not file.exists():
        raise OmniError("nothing to resume", where=str(file), mend="start without --resume")
    mend = "take another --run, and start anew"
    try:
        state = check_value(read_torch(file, mmap=False), RunState, str(file))
        parse_json(state["eval"], dict[str, dict[str, Any]], f"{file}, `eval`")
        return state
    except OmniError as error:
        raise OmniError(f"damaged state: {error.what}", error.where, mend) from error


def restore_state(
    state: RunState,
    projector: nn.Module,
    optimizer: torch.optim.Optimizer,
    where: str,
    lora: nn.Module | None = None,
) -> None:
    """Put the weights, the optimiser's moments and torch's generator back to where they were.

    Raises:
        OmniError: they belong to another projector, other adapters or another optimiser, or are not
            finite.
    """
    modules = [("projector", projector, state["projector"])]
    if lora is not None:
        modules.append(("set of adapters", lora, state.get("lora", {})))
    for what, module, tensors in modules:
        _check_fit(module, tensors, where, what)
        check_finite(tensors, where)
    moments = state["optimizer"].get("state")
    for number, held in moments.items() if isinstance(moments, dict) else ():
        if isinstance(held, dict):
            named = {f"{k} of parameter {number}": v for k, v in held.items()}
            check_finite({k: v for k, v in named.items() if isinstance(v, Tensor)}, where)
    try:
        for _, module, tensors in modules:
            module.load_state_dict(tensors)
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
    except Exception as error:  # what torch raises depends on what is wrong; here it is one
        raise OmniError(
            f"the state does not fit this run ({error})", where, "start anew with another --run"
        ) from error


def _check_fit(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str, what: str = "projector"
) -> None:
    """Exactly the keys and shapes of `module`, in floating point."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    got = {key: tuple(value.shape) for key, value in tensors.items()}
    for key in sorted(expected.keys() | got.keys()):
        if expected.get(key) != got.get(key) or not tensors[key].is_floating_point():
            have = f"{got[key]} of {tensors[key].dtype}" if key in got else "missing"
            raise OmniError(
                f"the {what} does not fit the run's config: {key} is {have}, "
                f"expected {expected.get(key, 'not there')}",
                where,
                f"copy the run again: config and {what} are of two runs, or damaged",
            )


def append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    """Add one JSON object to metrics.jsonl.

    Raises:
        OmniError: it can't be written; a half line may be left, which every reader leaves out.
    """
    file = path / "metrics.jsonl"
    try:
        with file.open("a") as out:
            out.write(json.dumps(line, sort_keys=True) + "\n")
    except OSError as error:
        raise OmniError(
            f"can't write ({error.strerror or error})",
            str(file),
            "make room and run again with --resume",
        ) from error


def trim_metrics(path: Path, step: int) -> None:
    """Drop what was logged after `step`: a resumed run logs it again. A half line goes too.

    Raises:
        OmniError: a line that is not the last is damaged.
    """
    file = path / "metrics.jsonl"
    kept = [text + "\n" for text, line in read_metrics(file) if line["step"] <= step]
    write_whole(file, "".join(kept).encode())
