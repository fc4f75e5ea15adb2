"""What a run is made of before its first step: the LM, the data, the projector and the adapters, new or
of the run it starts from; and its folder, new or to be gone on with.

Must not know how a step is made, nor when what is saved.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from omni import runs
from omni.bridge.projector import Projector, build_projector
from omni.bridge.room import make_room
from omni.bridge.turns import Template, choose_template, letter_ids
from omni.device import pick_dtype
from omni.errors import OmniError, enough_memory, halved
from omni.evaluation.evaluate import keep_own
from omni.evaluation.share import Share
from omni.formats.run_files import (
    SCHEMA,
    TASKS,
    AdapterConfig,
    ParentUse,
    RunConfig,
    TableUse,
)
from omni.formats.shards import Sample
from omni.nanochat import NanoChat, Tokenizer, load_checkpoint
from omni.nanochat.config import ModelMeta
from omni.nanochat.discovery import DEMO
from omni.nanochat.lora import TARGETS, Lora
from train.asking import Table, read_table
from train.data import TrainingData, read_sides
from train.options import TrainOptions
from train.questions import Questions, read_questions
from train.ranks import Peers
from train.resume import provenance, resumable
from train.sides import choose_sides

EVAL_LIMIT = TrainOptions.eval_limit
EVAL_BATCH = 32  # utterances; fewer where --micro-batch-size says that memory is short
LORA_TARGETS = {"all": TARGETS, "attn": tuple(t for t in TARGETS if t.startswith("attn."))}


class Inputs(NamedTuple):
    """What a rank has read and built before the ranks agree. The LM wears its adapters."""

    options: TrainOptions  # steps counted
    data: TrainingData
    lm: NanoChat
    lm_hash: str
    tok: Tokenizer
    meta: ModelMeta
    template: Template
    projector: Projector
    parent: runs.Run | None
    table: Table | None
    questions: Questions | None

    @property
    def select(self) -> str:
        """What chooses the checkpoint."""
        return TASKS if self.data.judges else self.data.select

    def config(self) -> RunConfig:
        """Of the run folder."""
        demo = Path(self.meta["path"]).resolve().is_relative_to(DEMO.resolve())
        config: RunConfig = {
            "schema": SCHEMA,
            "projector": self.projector.config,
            "template": self.template.to_json(),
            "lm": "demo" if demo else str(Path(self.meta["path"]).resolve()),
            "select": self.select,
            "train": self.options.to_json(),
        }
        if self.lm.lora is not None:
            config["lora"] = _adapter_config(self.lm.lora, self.options.lora_everywhere)
        return config


def read_inputs(options: TrainOptions, peers: Peers) -> Inputs:
    """The LM, the data, the projector, the adapters.

    Raises:
        OmniError: bad input of any kind.
    """
    parent = runs.load_run(options.parent) if options.parent else None
    with enough_memory("the LM and the projector", halved(options.hidden, "--hidden")):
        sides = choose_sides(options.shards, options.weights, options.eval_shards)
        lm, tok, meta = load_checkpoint(
            _lm_name(options, parent), peers.device,
            dtype=pick_dtype(options.lm_dtype, peers.device),
        )  # fmt: skip
        lm.activation_checkpointing = options.checkpoint_activations
        lm_hash = lm.fingerprint()
        template = choose_template(meta, options.prompt, options.audio_first)
        if parent is not None:
            parent.check_lm(lm)
            if options.prompt is None:
                template = Template(**parent.config["template"])
        stack = options.stack if parent is None else parent.config["projector"]["stack"]
        room = make_room(lm, tok, template, stack, options.stretch)
        table = None
        if options.tasks:
            table = read_table(
                options.tasks, tok, template.kind, options.turns, options.seed,
                alone=options.lora_everywhere,
            )  # fmt: skip
        say = _say if peers.rank == 0 else _say_nothing
        judges = halved(options.eval_limit or EVAL_LIMIT, "--eval-limit")
        with enough_memory("the utterances to evaluate on", judges):
            data = read_sides(sides, options.eval_limit, room, options.shuffle_pairs, table, say)
            questions = None
            if options.eval_tasks:
                splits = list(sides.judges.values())
                questions = read_questions(options.eval_tasks, splits, options.eval_limit)
                if template.kind == "sft":
                    letter_ids(tok)
        if parent is not None:
            parent.check_features(data.fingerprint, "training shards")
        steps = options.steps or data.steps(options.batch_size, options.batch_frames)
        data = replace(data, eval_sets=_own(data.eval_sets, options, peers))
        sample = next(iter(data.eval_sets.values()))[0]
        projector = _projector(options, parent, lm, sample).to(peers.device)
        lm.wear(_adapters(options, parent, lm))
    return Inputs(
        replace(options, steps=steps), data, lm, lm_hash, tok, meta, template, projector, parent, table,
        questions,
    )  # fmt: skip


def begin(inputs: Inputs, folder: Path, command: Sequence[str]) -> runs.RunState | None:
    """On rank 0: the state to go on from, or None and a new run folder."""
    dtype, device = str(inputs.lm.dtype), inputs.lm.device.type
    state = resumable(inputs.options, inputs.data, folder, dtype, device)
    if state is None:
        # Of a start that was killed before its first checkpoint.
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        about = provenance(
            inputs.data, inputs.lm_hash, dtype, device, inputs.meta, inputs.options, command
        )
        if inputs.table is not None:
            about["tasks"] = _table_use(inputs.table)
        if inputs.parent is not None:
            about["parent"] = _parent_use(inputs.parent)
        runs.create_run(folder, inputs.config(), about)
        if inputs.parent is not None:
            runs.save_projector(folder, runs.UNTRAINED, inputs.parent.untrained())
        return None
    run = runs.load_run(folder)
    run.check_features(inputs.data.fingerprint, "training shards")
    run.check_lm(inputs.lm)
    return state


def eval_batch(options: TrainOptions) -> int:
    """Utterances evaluated at a time."""
    return min(EVAL_BATCH, options.micro_batch_size or EVAL_BATCH)


def share_of(peers: Peers) -> Share:
    """This rank's of an evaluation."""
    return Share(peers.rank, peers.world, peers.gather)


def _lm_name(options: TrainOptions, parent: runs.Run | None) -> str:
    """A run that starts from another takes its LM, unless it is told where it lies now."""
    return options.lm if parent is None or options.lm != "auto" else parent.config["lm"]


def _projector(
    options: TrainOptions, parent: runs.Run | None, lm: NanoChat, sample: Sample
) -> Projector:
    torch.manual_seed(options.seed)
    if parent is not None:
        return parent.projector().train().requires_grad_(not options.freeze_projector)
    return build_projector(
        options.projector,
        d_in=sample.features.shape[-1],
        n_embd=lm.config.n_embd,
        n_ve=lm.n_ve,
        kv_dim=lm.kv_dim,
        stack=options.stack,
        hidden=options.hidden,
        audio_ve=options.audio_ve,
        n_layers_in=sample.features.shape[0] if sample.features.ndim == 3 else 1,
    )


def _adapters(options: TrainOptions, parent: runs.Run | None, lm: NanoChat) -> Lora | None:
    """New ones, or those of the run it starts from, which go on.

    Raises:
        OmniError: the parent's are others than the options ask for.
    """
    theirs = None if parent is None else parent.load_adapters(lm)
    if not options.lora and theirs is None:
        return None
    targets = LORA_TARGETS[options.lora_targets]
    if theirs is None:
        lora = Lora(
            lm.config, options.lora, options.alpha, options.lora_dropout, targets, options.seed
        )
        return lora.to(lm.device).train()
    asked = (options.lora, options.alpha, targets)
    if asked != (theirs.rank, theirs.alpha, theirs.targets):
        raise OmniError(
            f"the run to start from has adapters of rank {theirs.rank} and alpha {theirs.alpha:g} on "
            f"{', '.join(theirs.targets)}; asked for is rank {options.lora} and alpha {options.alpha:g}",
            options.parent or "",
            f"give --lora {theirs.rank} --lora-alpha {theirs.alpha:g}, or start from a run without",
        )
    theirs.dropout = options.lora_dropout
    return theirs.requires_grad_(True).train()


def _adapter_config(lora: Lora, everywhere: bool) -> AdapterConfig:
    return {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "targets": list(lora.targets),
        "everywhere": everywhere,
    }


def _table_use(table: Table) -> TableUse:
    return {"path": table.where, "sha256": table.sha256, "rows": len(table.tasks.rows)}


def _parent_use(parent: runs.Run) -> ParentUse:
    lora = parent.path / "lora-best.safetensors" if "lora" in parent.config else None
    return {
        "path": str(parent.path.resolve()),
        "which": "best",
        "projector": _sha256(parent.path / "projector-best.safetensors"),
        "lora": "" if lora is None else _sha256(lora),
    }


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _own(
    sets: Mapping[str, Sequence[Sample]], options: TrainOptions, peers: Peers
) -> dict[str, list[Sample]]:
    """What this rank evaluates: of several, none holds all of it."""
    if peers.world == 1:
        return {name: list(samples) for name, samples in sets.items()}
    batch, share = eval_batch(options), share_of(peers)
    limit = options.decode_limit
    return {name: keep_own(samples, batch, limit, share) for name, samples in sets.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_nothing(text: str) -> None:
    """What ranks other than 0 say."""
