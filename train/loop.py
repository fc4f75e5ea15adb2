"""A training run from start or resumption to its last checkpoint.

Ties data, stream, step and tracker together. One object, `_Session`, holds what lives as long as
the run; whatever must survive a kill goes through `_save` and `_restore`. Must not
know how a gradient is made (step.py) or what is in a shard.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from omni import runs
from omni.encoder import frames_per_second
from omni.errors import OmniError, enough_memory, halved
from omni.evaluation.choice_figures import NEEDS, GroupFigures
from omni.evaluation.choices import score_choices
from omni.evaluation.evaluate import evaluate
from omni.evaluation.figures import Figures, headline, without_utterances
from omni.evaluation.verdict import add_choice_verdicts, verdict
from omni.formats.run_files import TASKS
from omni.formats.shards import Sample
from train.clock import Clock
from train.data import TrainingData
from train.feed import feed
from train.judging import TaskFigures, judge
from train.memory import keep_primitives_few, memory_gb
from train.options import TrainOptions
from train.questions import Questions
from train.ranks import Peers, ranks
from train.resume import Seen, refuse_other_inputs, refuse_overwriting
from train.scaling import LossScale
from train.start import begin, eval_batch, read_inputs, share_of
from train.step import StepFigures, Trainee, learning_rate, make_optimizer, train_step
from train.stream import START, Packed, Position
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
    keep_primitives_few()
    with ranks(options.device) as peers:
        session = _open(options, folder, resume, command, peers)
        if session.step == 0:
            if peers.rank == 0:
                runs.save_projector(folder, "init", session.trainee.projector)
            _look(session)
        micro = session.trainee.micro
        mend = f"{halved(micro, '--micro-batch-size')} and changes no result"
        with enough_memory(f"micro-batch of {micro}", mend):
            _run_steps(session)
        if session.trainee.lm.exact_hash() != session.lm_bits:
            raise OmniError("the frozen LM has changed during training", where=str(folder))
        if peers.rank == 0:
            for split, figures in session.last_eval.items():
                session.tracker.say(f"{split}: {verdict(figures, session.recent_loss())}")
            for need, group in session.last_choices.items():
                session.tracker.say(f"questions on {need}: {group['verdict']}")
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
    lm_hash: str
    lm_bits: str  # the LM's exact hash before the first step
    tracker: Tracker
    select: str  # what chooses the checkpoint
    questions: Questions | None
    step: int = 0
    position: Position = START
    best: float = float("inf")
    seen: int = 0  # rows trained on by this process and its peers, since it was started
    unserved: int = 0  # of these, rows that the CTC loss could not count
    last_eval: dict[str, Figures] = field(default_factory=dict)
    last_choices: dict[str, GroupFigures] = field(default_factory=dict)
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
    options: TrainOptions, folder: Path, resume: bool, command: Sequence[str], peers: Peers
) -> _Session:
    """Everything up to the first step. What is in the run folder is rank 0's to see: over a network
    the others may see it otherwise. Whoever fails ends all."""
    peers.first(lambda: refuse_overwriting(folder, resume))
    inputs = peers.agreed(lambda: read_inputs(options, peers))
    data, lm = inputs.data, inputs.lm
    seen = peers.gather(Seen(inputs.lm_hash, data.fingerprint, data.content, inputs.options.steps))
    peers.agreed(lambda: refuse_other_inputs(seen))
    state = peers.first(lambda: begin(inputs, folder, command))
    trainee = Trainee(
        lm, inputs.tok, inputs.projector, inputs.template,
        make_optimizer(inputs.projector, options.lr, lm.lora, options.lora_lr),
        options.micro_batch_size or options.batch_size, options.clip, options.ctc_weight,
        LossScale.of(lm.dtype), options.bucket, options.self_loss, options.lora_everywhere,
        options.seed, peers.rank,
    )  # fmt: skip
    if options.compile:
        trainee.compile()
    page = folder if peers.rank == 0 else None
    tracker = Tracker(page, inputs.config(), options.wandb, inputs.options.steps)
    bits = lm.exact_hash()
    session = _Session(
        inputs.options,
        folder,
        peers,
        data,
        trainee,
        inputs.lm_hash,
        bits,
        tracker,
        inputs.select,
        inputs.questions,
    )
    if data.note:
        tracker.say(data.note)
    if state is not None:
        peers.agreed(lambda: _restore(session, state))
    return session


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
                _look(session)
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


def _look(session: _Session) -> None:
    """Figures of everything that judges the run, the work shared over the ranks; rank 0 keeps the best
    checkpoint."""
    lm, lora = session.trainee.lm, session.trainee.lm.lora
    session.last_eval = {}
    ce: dict[str, float] = {}
    if lora is not None:
        lora.eval()
    batch = eval_batch(session.options)
    full = f"evaluation of {batch} utterances at a time"
    with enough_memory(full, halved(batch, "--micro-batch-size", "take a smaller --lm")):
        for split, samples in session.data.eval_sets.items():
            ce[split] = _evaluate(session, split, samples, batch)
        more: dict[str, object] = {}
        if session.data.judges:
            asked = _judge(session, batch)
            more[TASKS], ce[TASKS] = asked, asked["ce"]
        if session.questions is not None:
            more["choices"] = _ask(session, session.questions, batch)
    session.tracker.log(session.step, eval=session.last_eval, **more)
    if lora is not None:
        lora.train()
    if session.step and ce[session.select] < session.best:
        session.best = ce[session.select]
        if session.peers.rank == 0:
            runs.save_projector(session.folder, "best", session.trainee.projector)
            runs.save_adapters(session.folder, "best", lm.lora, session.lm_hash)


def _evaluate(session: _Session, split: str, samples: Sequence[Sample], batch: int) -> float:
    """Of a split's utterances, repeated. Returns its CE."""
    trainee, options = session.trainee, session.options
    figures = evaluate(
        trainee.lm, trainee.tok, trainee.projector, samples, trainee.template, batch,
        decode_limit=options.decode_limit, language=options.language,
        rate=frames_per_second(session.data.fingerprint_config),
        share=share_of(session.peers),
    )  # fmt: skip
    session.last_eval[split] = without_utterances(figures)
    rate = headline(figures)
    written = f"  {rate.name} {rate.rate:.1%}" if rate is not None else ""
    gap = f"  gap {figures['gap_shuffled']:+.3f}" if "gap_shuffled" in figures else ""
    session.tracker.say(
        f"step {session.step}  {split} ({figures['n']}): CE {figures['ce']:.3f}{gap}  "
        f"accuracy {figures['token_accuracy']:.1%}{written}"
    )
    return figures["ce"]


def _judge(session: _Session, batch: int) -> TaskFigures:
    """Of the table's rows that don't train."""
    trainee = session.trainee
    figures = judge(
        trainee.lm, trainee.tok, trainee.projector, session.data.judges, trainee.template, batch,
        share_of(session.peers),
    )  # fmt: skip
    session.tracker.say(
        f"step {session.step}  rows of the table ({figures['n']}): CE {figures['ce']:.3f}  "
        f"accuracy {figures['token_accuracy']:.1%}"
    )
    return figures


def _ask(session: _Session, questions: Questions, batch: int) -> dict[str, dict[str, GroupFigures]]:
    """Of four-option questions beside the controls in which nothing can be heard, by table and need."""
    trainee = session.trainee
    figures = score_choices(
        trainee.lm, trainee.tok, trainee.projector, questions.rows, questions.samples,
        trainee.template, batch, share=share_of(session.peers), texts=False,
    )  # fmt: skip
    add_choice_verdicts(figures)
    groups: dict[str, GroupFigures] = {n: figures[n] for n in NEEDS if n in figures}
    session.last_choices = groups
    for need, group in groups.items():
        controls = "  ".join(f"{name} {c['accuracy']:.1%}" for name, c in group["controls"].items())
        session.tracker.say(
            f"step {session.step}  {questions.name}, {need} ({group['n']}): {group['accuracy']:.1%} right, "
            f"{group['strict']:.1%} in all rotations  ({controls})"
        )
    return {questions.name: groups}


def _save(session: _Session) -> None:
    """The checkpoint. Resume reads state.pt alone, and makes the other files again: a kill between
    them costs nothing."""
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
    if trainee.lm.lora is not None:
        state["lora"] = trainee.lm.lora.state_dict()
    runs.save_state(session.folder, state)
    _save_last(session)


def _save_last(session: _Session) -> None:
    runs.save_projector(session.folder, "last", session.trainee.projector)
    runs.save_adapters(session.folder, "last", session.trainee.lm.lora, session.lm_hash)


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
        session.trainee.lm.lora,
    )
    if "scale" in state and session.trainee.lm.dtype == torch.float16:
        value, good = state["scale"]
        session.trainee.scale = LossScale(value, int(good))
    session.step, session.best = state["step"], state["best"]
    session.position = Position(*state["position"])
    session.last_eval = json.loads(state["eval"])
    if session.peers.rank == 0:
        runs.trim_metrics(session.folder, session.step)
        _save_last(session)
    session.tracker.say(
        f"resumed at step {session.step}, pass {session.position.number}, "
        f"batch {session.position.batch}"
    )
