"""A training run from start or resumption to its last checkpoint.

Ties data, stream, step and tracker together. One object, `_Session`, holds what lives as long as
the run; whatever must survive a kill goes through `_save` and `_restore`. Must not
know how a gradient is made (step.py) or what is in a shard.
"""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from omni import runs
from omni.bridge.projector import Projector, build_projector
from omni.bridge.room import make_room
from omni.bridge.turns import Template, choose_template
from omni.device import pick_dtype
from omni.encoder import frames_per_second
from omni.errors import OmniError, enough_memory, halved
from omni.evaluation.evaluate import evaluate, keep_own
from omni.evaluation.figures import Figures, headline, without_utterances
from omni.evaluation.share import Share
from omni.evaluation.verdict import verdict
from omni.formats.run_files import SCHEMA, RunConfig
from omni.formats.shards import Sample
from omni.nanochat import NanoChat, Tokenizer, load_checkpoint
from omni.nanochat.config import ModelMeta
from omni.nanochat.discovery import DEMO
from train.clock import Clock
from train.data import TrainingData, read_sides
from train.feed import feed
from train.memory import keep_primitives_few, memory_gb
from train.options import TrainOptions
from train.ranks import Peers, ranks
from train.resume import Seen, provenance, refuse_other_inputs, refuse_overwriting, resumable
from train.scaling import LossScale
from train.sides import choose_sides
from train.step import StepFigures, Trainee, learning_rate, make_optimizer, train_step
from train.stream import START, Packed, Position
from train.track import Tracker

EVAL_LIMIT = TrainOptions.eval_limit
EVAL_BATCH = 32  # utterances; fewer where --micro-batch-size says that memory is short


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
    keep_primitives_few()
    with ranks(options.device) as peers:
        session = _open(options, folder, resume, command, peers)
        if session.step == 0:
            if peers.rank == 0:
                runs.save_projector(folder, "init", session.trainee.projector)
            _evaluate(session)
        micro = session.trainee.micro
        mend = f"{halved(micro, '--micro-batch-size')} and changes no result"
        with enough_memory(f"micro-batch of {micro}", mend):
            _run_steps(session)
        if session.trainee.lm.exact_hash() != session.lm_bits:
            raise OmniError("the frozen LM has changed during training", where=str(folder))
        if peers.rank == 0:
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
    peers: Peers
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


class _Inputs(NamedTuple):
    """What a rank has read and built before the ranks agree."""

    options: TrainOptions  # steps counted
    data: TrainingData
    lm: NanoChat
    lm_hash: str
    tok: Tokenizer
    meta: ModelMeta
    template: Template
    projector: Projector

    def config(self) -> RunConfig:
        """Of the run folder."""
        demo = Path(self.meta["path"]).resolve().is_relative_to(DEMO.resolve())
        return {
            "schema": SCHEMA,
            "projector": self.projector.config,
            "template": self.template.to_json(),
            "lm": "demo" if demo else str(Path(self.meta["path"]).resolve()),
            "select": self.data.select,
            "train": self.options.to_json(),
        }


def _open(
    options: TrainOptions, folder: Path, resume: bool, command: Sequence[str], peers: Peers
) -> _Session:
    """Everything up to the first step. What is in the run folder is rank 0's to see: over a network
    the others may see it otherwise. Whoever fails ends all."""
    peers.first(lambda: refuse_overwriting(folder, resume))
    inputs = peers.agreed(lambda: _read(options, peers))
    data, lm = inputs.data, inputs.lm
    seen = peers.gather(Seen(inputs.lm_hash, data.fingerprint, data.content, inputs.options.steps))
    peers.agreed(lambda: refuse_other_inputs(seen))
    state = peers.first(lambda: _begin(inputs, folder, command))
    trainee = Trainee(
        lm, inputs.tok, inputs.projector, inputs.template,
        make_optimizer(inputs.projector, options.lr),
        options.micro_batch_size or options.batch_size, options.clip, options.ctc_weight,
        LossScale.of(lm.dtype), options.bucket,
    )  # fmt: skip
    if options.compile:
        trainee.compile()
    page = folder if peers.rank == 0 else None
    tracker = Tracker(page, inputs.config(), options.wandb, inputs.options.steps)
    bits = lm.exact_hash()
    session = _Session(inputs.options, folder, peers, data, trainee, bits, tracker)
    if data.note:
        tracker.say(data.note)
    if state is not None:
        peers.agreed(lambda: _restore(session, state))
    return session


def _read(options: TrainOptions, peers: Peers) -> _Inputs:
    """The LM, the data and a new projector."""
    with enough_memory("the LM and the projector", halved(options.hidden, "--hidden")):
        sides = choose_sides(options.shards, options.weights, options.eval_shards)
        lm, tok, meta = load_checkpoint(
            options.lm, peers.device, dtype=pick_dtype(options.lm_dtype, peers.device)
        )
        lm.activation_checkpointing = options.checkpoint_activations
        lm_hash = lm.fingerprint()
        template = choose_template(meta, options.prompt, options.audio_first)
        room = make_room(lm, tok, template, options.stack, options.stretch)
        say = _say if peers.rank == 0 else _say_nothing
        judges = halved(options.eval_limit or EVAL_LIMIT, "--eval-limit")
        with enough_memory("the utterances to evaluate on", judges):
            data = read_sides(sides, options.eval_limit, room, options.shuffle_pairs, say)
        steps = options.steps or data.steps(options.batch_size, options.batch_frames)
        data = replace(data, eval_sets=_own(data.eval_sets, options, peers))
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
        ).to(peers.device)
    return _Inputs(replace(options, steps=steps), data, lm, lm_hash, tok, meta, template, projector)


def _begin(inputs: _Inputs, folder: Path, command: Sequence[str]) -> runs.RunState | None:
    """On rank 0: the state to go on from, or None and a new run folder."""
    state = resumable(inputs.options, inputs.data, folder, str(inputs.lm.dtype))
    if state is None:
        # Of a start that was killed before its first checkpoint.
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        about = provenance(
            inputs.data, inputs.lm_hash, str(inputs.lm.dtype), inputs.meta, inputs.options, command
        )
        runs.create_run(folder, inputs.config(), about)
        return None
    run = runs.load_run(folder)
    run.check_features(inputs.data.fingerprint, "training shards")
    run.check_lm(inputs.lm)
    return state


def _run_steps(session: _Session) -> None:
    """Optimiser steps until the last, with evaluations and checkpoints on their way."""
    options = session.options
    stream = feed(options, session.data, session.peers, session.position)
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
            due = session.step == options.steps
            if due or session.step % session.every == 0:
                _evaluate(session)
            save = due or session.step % (options.save_every or session.every) == 0
            if save and session.peers.rank == 0:
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
    """Figures of every evaluation split, the work shared over the ranks; rank 0 keeps the best
    projector by CE on the selection split."""
    trainee, options = session.trainee, session.options
    session.last_eval = {}
    batch = _eval_batch(options)
    full = f"evaluation of {batch} utterances at a time"
    for split, samples in session.data.eval_sets.items():
        with enough_memory(full, halved(batch, "--micro-batch-size", "take a smaller --lm")):
            figures = evaluate(
                trainee.lm, trainee.tok, trainee.projector, samples, trainee.template, batch,
                decode_limit=options.decode_limit, language=options.language,
                rate=frames_per_second(session.data.fingerprint_config),
                share=_share(session.peers),
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
        if session.peers.rank == 0:
            runs.save_projector(session.folder, "best", trainee.projector)


def _eval_batch(options: TrainOptions) -> int:
    return min(EVAL_BATCH, options.micro_batch_size or EVAL_BATCH)


def _share(peers: Peers) -> Share:
    return Share(peers.rank, peers.world, peers.gather)


def _own(
    sets: Mapping[str, Sequence[Sample]], options: TrainOptions, peers: Peers
) -> dict[str, list[Sample]]:
    """What this rank evaluates: of several, none holds all of it."""
    if peers.world == 1:
        return {name: list(samples) for name, samples in sets.items()}
    batch, share = _eval_batch(options), _share(peers)
    limit = options.decode_limit
    return {name: keep_own(samples, batch, limit, share) for name, samples in sets.items()}


def _save(session: _Session) -> None:
    """The checkpoint. Resume reads state.pt alone, and makes the other file again: a kill between the
    two costs nothing."""
    trainee = session.trainee
    state: runs.RunState = {
        "step": session.step,
        "position": list(session.position),
        "best": session.best,
        "projector": trainee.projector.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "eval": json.dumps(session.last_eval),
        "world": session.peers.world,
    }
    if trainee.scale.value != 1:
        state["scale"] = [trainee.scale.value, trainee.scale.good]
    runs.save_state(session.folder, state)
    runs.save_projector(session.folder, "last", trainee.projector)


def _restore(session: _Session, state: runs.RunState) -> None:
    world = session.peers.world
    if state["world"] != world:
        session.tracker.say(
            f"{world} ranks now, {state['world']} before: the batches stay the same, sums "
            "over ranks round differently"
        )
    runs.restore_state(
        state,
        session.trainee.projector,
        session.trainee.optimizer,
        str(session.folder / "state.pt"),
    )
    if "scale" in state and session.trainee.lm.dtype == torch.float16:
        value, good = state["scale"]
        session.trainee.scale = LossScale(value, int(good))
    session.step, session.best = state["step"], state["best"]
    session.position = Position(*state["position"])
    session.last_eval = json.loads(state["eval"])
    if session.peers.rank == 0:
        runs.trim_metrics(session.folder, session.step)
        runs.save_projector(session.folder, "last", session.trainee.projector)
    session.tracker.say(
        f"resumed at step {session.step}, pass {session.position.number}, "
        f"batch {session.position.batch}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_nothing(text: str) -> None:
    """What ranks other than 0 say."""
