"""A training run from start or resumption to its last checkpoint.

Ties data, stream, step and tracker together. One object, `_Session`, holds what lives as long as
the run; whatever must survive a kill goes through `_save` and `_restore`. Must not
know how a gradient is made (step.py) or what is in a shard.
"""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from omni import runs
from omni.bridge.projector import build_projector
from omni.bridge.prompt import choose_template
from omni.bridge.room import make_room
from omni.encoder import frames_per_second
from omni.errors import OmniError
from omni.evaluation.evaluate import evaluate
from omni.evaluation.figures import Figures, headline, without_utterances
from omni.evaluation.verdict import verdict
from omni.nanochat import load_checkpoint
from omni.nanochat.config import ModelMeta
from omni.nanochat.discovery import DEMO
from train.augment import Augmentation
from train.clock import Clock
from train.content import changes
from train.data import TrainingData, read_sides
from train.memory import enough_memory, halved, memory_gb
from train.options import TrainOptions
from train.passes import BatchRule
from train.ranks import ranks
from train.sides import choose_sides
from train.step import StepFigures, Trainee, learning_rate, make_optimizer, train_step
from train.stream import START, Packed, Position, StreamSpec, batches
from train.track import Tracker


def train(
    options: TrainOptions, folder: Path, resume: bool = False, command: Sequence[str] = ()
) -> dict[str, Figures]:
    """Train a projector on shards against a frozen LM, into the run folder `folder`.

    Args:
        resume: go on from the folder's last checkpoint, if it has one.
        command: what the user typed, for the provenance.

    Returns:
        The last evaluation: figures by split, as `omni.evaluation.evaluate.evaluate` gives them.

    Raises:
        OmniError: bad input; a run already there; options other than the resumed run's; a loss
            that is not finite; an LM that changed.
    """
    with ranks(options.device) as (rank, world, device):
        with enough_memory("the LM and the projector", halved(options.hidden, "--hidden")):
            session = _open(options, folder, resume, command, rank, world, device)
        if session.step == 0 and rank == 0:
            runs.save_projector(folder, "init", session.trainee.projector)
            _evaluate(session)
        micro = session.trainee.micro
        mend = f"{halved(micro, '--micro-batch-size')} and changes no result"
        with enough_memory(f"micro-batch of {micro}", mend):
            _run_steps(session)
        if session.trainee.lm.exact_hash() != session.lm_bits:
            raise OmniError("the frozen LM has changed during training", where=str(folder))
        if rank == 0:
            for split, figures in session.last_eval.items():
                session.tracker.say(f"{split}: {verdict(figures, session.recent_loss())}")
            _say_unserved(session)
            session.tracker.close()
        return session.last_eval


@dataclass
class _Session:
    """What lives as long as the run. `position` is where the next batch stands."""

    options: TrainOptions
    folder: Path
    rank: int
    world: int
    data: TrainingData
    trainee: Trainee
    lm_bits: str  # the LM's exact hash before the first step
    tracker: Tracker
    step: int = 0
    position: Position = START
    best: float = float("inf")
    seen: int = 0  # rows trained on by this process and its peers, since it was started
    unserved: int = 0  # of these, rows that the CTC loss could not count
    last_eval: dict[str, Figures] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    @property
    def every(self) -> int:
        """Steps between evaluations."""
        return self.options.eval_every or max(self.options.steps // 5, 1)

    def recent_loss(self) -> float | None:
        """Mean of the last steps of this process; None if there were none."""
        recent = self.losses[-20:]
        return sum(recent) / len(recent) if recent else None


def _open(
    options: TrainOptions,
    folder: Path,
    resume: bool,
    command: Sequence[str],
    rank: int,
    world: int,
    device: torch.device,
) -> _Session:
    """Everything up to the first step."""
    sides = choose_sides(options.shards, options.weights, options.eval_shards)
    _refuse_overwriting(folder, resume)
    lm, tok, meta = load_checkpoint(options.lm, device)
    lm.activation_checkpointing = options.checkpoint_activations
    lm_hash = lm.fingerprint()
    if options.compile:
        lm.compile_layers()
    template = choose_template(meta, options.prompt, options.audio_first)
    room = make_room(lm, tok, template, options.stack, options.stretch)
    say = _say if rank == 0 else _say_nothing
    data = read_sides(sides, options.eval_limit, room, options.shuffle_pairs, say)
    steps = options.steps or data.steps(options.batch_size, options.batch_frames)
    options = replace(options, steps=steps)
    state = _resumable(options, data, folder)
    if world > 1:
        dist.barrier()  # every rank has looked before rank 0 makes the folder
    sample = next(iter(data.eval_sets.values()))[0]
    torch.manual_seed(options.seed)
    projector = build_projector(
        options.projector,
        d_in=sample.features.shape[-1],
        n_embd=lm.config.n_embd,
        n_ve=lm.n_ve,
        kv_dim=lm.kv_dim,
        stack=options.stack,
        hidden=options.hidden,
        audio_ve=options.audio_ve,
        n_layers_in=sample.features.shape[0] if sample.features.ndim == 3 else 1,
    ).to(device)
    demo = Path(meta["path"]).resolve().is_relative_to(DEMO.resolve())
    config = {
        "projector": projector.config,
        "template": asdict(template),
        "lm": "demo" if demo else str(Path(meta["path"]).resolve()),
        "select": data.select,
        "train": options.to_json(),
    }
    if rank == 0 and state is None:
        # Of a start that was killed before its first checkpoint.
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        runs.create_run(
            folder, config, _provenance(data, lm_hash, str(lm.dtype), meta, options, command)
        )
    if world > 1:
        dist.barrier()
    trainee = Trainee(
        lm, tok, projector, template, make_optimizer(projector, options.lr),
        options.micro_batch_size or options.batch_size, options.clip, options.ctc_weight,
    )  # fmt: skip
    tracker = Tracker(folder if rank == 0 else None, config, options.wandb, options.steps)
    bits = lm.exact_hash()
    session = _Session(options, folder, rank, world, data, trainee, bits, tracker)
    if data.note:
        tracker.say(data.note)
    if state is not None:
        _restore(session, state)
    return session


def _run_steps(session: _Session) -> None:
    """Optimiser steps until the last, with evaluations and checkpoints on their way."""
    options = session.options
    augment = Augmentation(options.noise, options.gain, options.mask, options.stretch)
    spec = StreamSpec(
        session.data.shards,
        options.seed,
        BatchRule(options.batch_size, options.batch_frames, options.buffer),
        session.rank,
        session.world,
        augment if augment.active else None,
        session.data.texts if options.shuffle_pairs else None,
    )
    pin = session.trainee.lm.device.type == "cuda"
    stream = batches(spec, session.position, options.workers, pin)
    clock = Clock()
    with contextlib.closing(stream):
        while session.step < options.steps:
            packed = clock.wait(stream)
            lr = learning_rate(session.step, options.lr, options.warmup, options.steps)
            figures = train_step(session.trainee, packed, lr)
            session.step += 1
            session.position = packed.after
            session.losses.append(figures.loss)
            _log_step(session, figures, lr, packed, clock)
            if session.rank == 0:
                due = session.step == options.steps
                if due or session.step % session.every == 0:
                    _evaluate(session)
                if due or session.step % (options.save_every or session.every) == 0:
                    _save(session)
            clock.restart()


def _log_step(
    session: _Session, figures: StepFigures, lr: float, packed: Packed, clock: Clock
) -> None:
    clock.lap()
    seconds = max(clock.step_seconds, 1e-9)
    speeds = {
        "tokens_per_s": figures.n_tokens / seconds,
        "soft_per_s": figures.n_soft / seconds,
        "data_wait": clock.share,
        "padding": 1 - figures.n_frames / max(figures.n_padded, 1),
        "memory_gb": memory_gb(session.trainee.lm.device),
    }
    own = {
        "loss": figures.loss,
        "token_accuracy": figures.token_accuracy,
        "grad_norm": figures.grad_norm,
        "lr": lr,
        "pass": packed.at.number,
    }
    if session.options.ctc_weight:
        own["ctc_unserved"] = figures.n_unserved
        session.unserved += figures.n_unserved
    session.seen += packed.n_global
    session.tracker.log(session.step, **own, **speeds)
    session.tracker.progress(session.step, own | speeds)


def _say_unserved(session: _Session) -> None:
    """The CTC loss passes over a text with more tokens than soft tokens, and shows nothing of it."""
    if session.unserved:
        session.tracker.say(
            f"CTC: {session.unserved:,} of {session.seen:,} rows "
            f"({session.unserved / session.seen:.1%}) had more text than soft tokens and taught it "
            "nothing: lower --stack, or --ctc-weight 0 if they are many"
        )


def _evaluate(session: _Session) -> None:
    """Figures of every evaluation split; keeps the best projector by CE on the selection split."""
    trainee, options = session.trainee, session.options
    session.last_eval = {}
    for split, samples in session.data.eval_sets.items():
        figures = evaluate(
            trainee.lm, trainee.tok, trainee.projector, samples, trainee.template,
            decode_limit=options.decode_limit, language=options.language,
            rate=frames_per_second(session.data.fingerprint_config),
        )  # fmt: skip
        session.last_eval[split] = without_utterances(figures)
        rate = headline(figures)
        written = f"  {rate.name} {rate.rate:.1%}" if rate is not None else ""
        gap = f"  gap {figures['gap_shuffled']:+.3f}" if "gap_shuffled" in figures else ""
        session.tracker.say(
            f"step {session.step}  {split} ({figures['n']}): CE {figures['ce']:.3f}{gap}  "
            f"accuracy {figures['token_accuracy']:.1%}{written}"
        )
    session.tracker.log(session.step, eval=session.last_eval)
    ce = session.last_eval[session.data.select]["ce"]
    if session.step and ce < session.best:
        session.best = ce
        runs.save_projector(session.folder, "best", trainee.projector)


def _save(session: _Session) -> None:
    """The checkpoint. Resume reads state.pt alone, and makes the other file again: a kill between the
    two costs nothing."""
    trainee = session.trainee
    state = {
        "step": session.step,
        "position": list(session.position),
        "best": session.best,
        "projector": trainee.projector.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "eval": json.dumps(session.last_eval),
        "world": session.world,
    }
    runs.save_state(session.folder, state)
    runs.save_projector(session.folder, "last", trainee.projector)


def _refuse_overwriting(folder: Path, resume: bool) -> None:
    if not resume and (folder / "config.json").exists():
        raise OmniError("there is a run already", str(folder), "add --resume, or another --run")


def _resumable(options: TrainOptions, data: TrainingData, folder: Path) -> runs.RunState | None:
    """The state to go on from, or None to start; refuses to change the data or the recipe."""
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
    return runs.load_state(folder)


def _refuse_without_state(folder: Path) -> None:
    """Without a state a run was not begun, or was killed before its first checkpoint; if it has one,
    starting anew would write over it."""
    last = folder / "projector-last.safetensors"
    if os.path.lexists(last):
        raise OmniError(
            "this run has a checkpoint and no state.pt to go on from", str(folder),
            "copy state.pt back, or choose another --run",
        )  # fmt: skip


def _restore(session: _Session, state: runs.RunState) -> None:
    run = runs.load_run(session.folder)
    run.check_features(session.data.fingerprint, "training shards")
    run.check_lm(session.trainee.lm)
    if state["world"] != session.world:
        session.tracker.say(
            f"{session.world} ranks now, {state['world']} before: the batches stay the same, sums "
            "over ranks round differently"
        )
    runs.restore_state(
        state,
        session.trainee.projector,
        session.trainee.optimizer,
        str(session.folder / "state.pt"),
    )
    session.step, session.best = state["step"], state["best"]
    session.position = Position(*state["position"])
    session.last_eval = json.loads(state["eval"])
    if session.rank == 0:
        runs.trim_metrics(session.folder, session.step)
        runs.save_projector(session.folder, "last", session.trainee.projector)
    session.tracker.say(
        f"resumed at step {session.step}, pass {session.position.number}, "
        f"batch {session.position.batch}"
    )


def _provenance(
    data: TrainingData,
    lm_hash: str,
    dtype: str,
    meta: ModelMeta,
    options: TrainOptions,
    command: Sequence[str],
) -> dict[str, Any]:
    packages = ("nanochat-omni", "torch", "transformers", "webdataset", "numpy")
    return {
        "fingerprint": data.fingerprint,
        "fingerprint_config": data.fingerprint_config,
        "splits": data.splits,
        "held_out": list(data.held_out),
        "content": data.content,
        "longest_seconds": data.longest_seconds,
        "lm_hash": lm_hash,
        "lm_kind": meta["kind"],
        "lm_dtype": dtype,
        "seed": options.seed,
        "command": list(command),
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version()},
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_nothing(text: str) -> None:
    """What ranks other than 0 say."""
