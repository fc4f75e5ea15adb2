"""One run, measured: held-out audio through the trained and the untrained projector and the LM.

Brings sample, numbers, pictures and words together into a `RunView`. Must not write a
file, nor know how a number is computed or drawn.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from analyze.draw import clouds as figures
from analyze.draw import details as figures_detail
from analyze.draw.svg import Figure
from analyze.measure import sample
from analyze.measure import table as numbers
from analyze.measure.cascade import Cascade, hear
from analyze.measure.lens import MAX_UTTERANCES, look
from analyze.measure.sample import Progress, silent
from analyze.measure.table import Evidence
from analyze.page.html import PointSet, RunView, Told
from analyze.page.words import Circumstances, alerts, judge, tiles
from analyze.questions import table_views
from omni.bridge.projector import Projector
from omni.bridge.room import make_room, that_fit
from omni.bridge.turns import Template
from omni.device import pick_dtype
from omni.encoder import DEFAULT_ENCODER, frames_per_second
from omni.errors import OmniError, enough_memory
from omni.evaluation.evaluate import evaluate
from omni.evaluation.figures import Figures
from omni.evaluation.retention import without_adapters
from omni.formats.asked import open_table
from omni.formats.run_files import TASKS
from omni.formats.shards import Sample
from omni.formats.splits import SplitIndex, bears_name, find_splits, name_apart
from omni.nanochat import NanoChat, Tokenizer, load_checkpoint
from omni.runs import Run

MAX_CONTROL = 400  # utterances of the controls: their intervals need be no narrower
MAX_CONTROL_DECODES = 100  # an untrained projector's decodes are long, and say little
MAX_FRAMES_SHOWN = 5000


@dataclass(frozen=True)
class Request:
    """What to look at.

    shards: folders, empty for those of the run; find: how splits are found below one. lm: empty
    for the one the run was trained with. points: in a picture, text and audio together. encoder:
    folder or hub id of the features' encoder, whose decoder gives the cascade. batch: utterances of a
    forward pass, at most. tasks: tables that are asked, names or paths; manifests: a folder, where the
    sound of what is asked about is found.
    """

    shards: Sequence[str] = ()
    utterances: int = 200
    seed: int = 0
    lm: str = ""
    device: str = "cpu"
    points: int = 5000
    find: Callable[[str], Sequence[SplitIndex]] = find_splits
    encoder: str = DEFAULT_ENCODER
    lm_dtype: str = "auto"
    batch: int = 32
    tasks: Sequence[str] = ()
    manifests: str = "manifests"


@dataclass(frozen=True)
class Setting:
    """The loaded parts of one run: frozen LM, both projectors, held-out samples."""

    run: Run
    lm: NanoChat
    tok: Tokenizer
    template: Template
    trained: Projector
    untrained: Projector
    checkpoint: str
    splits: Sequence[SplitIndex]
    held_out: bool  # whether training saw none of the samples
    samples: Sequence[Sample]
    too_long: str  # a line on utterances that fit in no row of the LM; "" if there are none
    batch: int = 32  # utterances of a forward pass, at most

    @property
    def frame_seconds(self) -> float:
        """What one encoder frame lasts."""
        return 1 / frames_per_second(self.splits[0].fingerprint_config)


def examine(run: Run, request: Request, progress: Progress = silent) -> RunView:
    """Measure one run.

    Raises:
        OmniError: no checkpoint, shards of another encoder, another LM, no usable utterance.
    """
    asked_of = [open_table(name, run.provenance) for name in request.tasks]
    setting = set_up(run, request)
    evidence = gather(setting, request.seed, progress)
    progress("cascade", 0, 1)
    cascade = hear(
        evidence.evaluated["trained"], setting.lm, setting.tok, setting.template, setting.samples,
        setting.splits[0].fingerprint_config, request.encoder, request.device, run.language,
        request.batch,
    )  # fmt: skip
    progress("cascade", 1, 1)
    evidence = replace(evidence, cascade=cascade.figures)
    names = [setting.tok.decode([i]) for i in range(setting.lm.config.vocab_size)]
    picked = figures.pick(evidence, request.points)
    # Hundreds of small matrices: more threads only wait for each other, and one thread adds up
    # in the same order on every machine.
    with threadpool_limits(limits=1, user_api="blas"):
        progress("compute the numbers", 0, 1)
        table = numbers.table(evidence)
        progress("draw", 0, 1)
        pictures = _pictures(setting, evidence, picked, names)
    progress("draw", 1, 1)
    about = _circumstances(setting, evidence)
    asked = table_views(asked_of, setting, request, _found(run, request), progress)
    return RunView(
        name=run.path.name,
        verdict=judge(table),
        alerts=alerts(table, about),
        tiles=tiles(table),
        numbers=table,
        figures=pictures,
        utterances=_utterances(setting, evidence),
        facts=_facts(setting, evidence, request, cascade),
        sets=_point_sets(evidence, picked, _step_seconds(setting)),
        tokens=names,
        vectors={
            "text": evidence.text.rows[picked.text],
            "before": evidence.untrained.rows[picked.audio],
            "after": evidence.trained.rows[picked.audio],
        },
        tables=asked,
    )


def set_up(run: Run, request: Request) -> Setting:
    """Load everything that `request` asks for and check that it belongs together."""
    checkpoint = next(
        (w for w in ("best", "last") if (run.path / f"projector-{w}.safetensors").is_file()), "best"
    )
    trained = run.projector(checkpoint, request.device)
    untrained = run.untrained(request.device)
    splits, ids = _splits(run, request)
    for split in splits:
        run.check_features(split.fingerprint, str(split.folder))
    with enough_memory("the LM", "give --device cpu, or a card with more memory"):
        lm, tok, _ = load_checkpoint(
            request.lm or str(run.config["lm"]),
            request.device,
            dtype=pick_dtype(request.lm_dtype, request.device),
        )
        run.check_lm(lm, request.lm)
    run.wear(lm, checkpoint)
    template = Template(**run.config["template"])
    paths = [str(entry.path) for split in splits for entry in split.shards]
    found = sample.load(paths, request.utterances, request.seed, ids)
    samples, too_long = that_fit(found, make_room(lm, tok, template, trained.stack, stretch=0.0))
    held_out = bool(ids) or all(split.role != "train" for split in splits)
    return Setting(
        run, lm, tok, template, trained, untrained, checkpoint, splits, held_out, samples, too_long,
        request.batch,
    )  # fmt: skip


def gather(setting: Setting, seed: int, progress: Progress = silent) -> Evidence:
    """Run the audio through projector and LM, both projectors and both pairings."""
    s, samples = setting, setting.samples
    detail = sample.detail_count(samples, s.trained)
    partner = sample.partners(samples)
    texts = [str(x.meta["text_norm"]) for x in samples]
    evaluated: dict[str, Figures] = {}
    mixed = sample.mispaired(samples[:MAX_CONTROL])
    jobs: list[tuple[str, Projector, Sequence[Sample], int | None]] = [
        ("trained", s.trained, samples, None),
        ("untrained", s.untrained, samples[:MAX_CONTROL], MAX_CONTROL_DECODES),
    ]
    if mixed:
        jobs.append(("shuffled", s.trained, mixed, MAX_CONTROL_DECODES))
    for i, (name, projector, chosen, limit) in enumerate(jobs):
        progress("evaluate", i, len(jobs))
        # Before the first step there were no adapters either.
        with without_adapters(s.lm) if name == "untrained" else nullcontext():
            evaluated[name] = evaluate(
                s.lm, s.tok, projector, chosen, s.template, s.batch, decode_limit=limit,
                n_examples=0, language=s.run.language, rate=1 / s.frame_seconds,
            )  # fmt: skip
    progress("evaluate", len(jobs), len(jobs))
    inside: list[tuple[str, Projector | None, Sequence[int] | None]] = [
        ("trained", s.trained, None),
        ("untrained", s.untrained, None),
        ("shuffled", s.trained, partner.tolist()),
        ("text", None, None),
    ]
    lenses = {}
    for name, own, audio in inside:
        with without_adapters(s.lm) if name == "untrained" else nullcontext():
            lenses[name] = look(s.lm, s.tok, samples, s.template, own, audio, progress, s.batch)
    text = sample.read_text(s.lm, s.tok, samples, detail)
    return Evidence(
        text=text,
        trained=sample.read_audio(s.lm, s.trained, samples, text, detail, progress, s.batch),
        untrained=sample.read_audio(s.lm, s.untrained, samples, text, detail, progress, s.batch),
        partner=partner,
        labels=np.unique(texts, return_inverse=True)[1],
        frame_means=np.stack([sample.mean_frame(x) for x in samples]),
        evaluated=evaluated,
        lenses=lenses,
        seed=seed,
    )


def _found(run: Run, request: Request) -> list[SplitIndex]:
    """All splits below the folders asked for, or the run's."""
    options = run.config["train"]
    roots = list(request.shards) or [*options["shards"], *options["eval_shards"]]
    found = [split for root in roots for split in request.find(root)]
    if not found:
        raise OmniError(
            "no shards to look at", ", ".join(roots), "give --shards a folder made by omni-extract"
        )
    return found


def _splits(run: Run, request: Request) -> tuple[list[SplitIndex], Sequence[str]]:
    """Held-out splits below the folders asked for, or, where the run itself held utterances of its
    training splits out, those splits and the ids. Training utterances only if there is nothing else."""
    found = _found(run, request)
    if not request.shards and run.held_out:
        return [split for split in found if split.role == "train"], run.held_out
    return [split for split in found if split.role == "eval"] or found, ()


def _pictures(
    s: Setting, e: Evidence, picked: figures.Picked, names: Sequence[str]
) -> list[Figure]:
    """All pictures in reading order; those that need more points than there are stay out."""
    ids = [str(x.meta["id"]) for x in s.samples]
    texts = [str(x.meta["text_norm"]) for x in s.samples]
    drawn: list[Figure | None] = []
    if len(picked.text) >= 3:
        drawn += [
            figures.joint_pca(e, picked),
            figures.centred_pca(e, picked),
            figures.text_pca(e, picked),
        ]
        drawn += [figures.value_pca(e, picked), *figures.words(e, names, texts)]
    drawn += figures_detail.matrices(e, names, ids, texts, _step_seconds(s))
    if len(picked.text) >= 3:
        drawn += [figures.layers(e), figures_detail.lens_curves(e), figures_detail.distributions(e)]
        drawn += [
            figures_detail.variance(e, picked),
            figures_detail.encoder_frames(*_frames(s.samples, s.frame_seconds)),
        ]
    drawn.append(figures_detail.training_curves(s.run.metrics()))
    return [figure for figure in drawn if figure is not None]


def _frames(
    samples: Sequence[Sample], frame_seconds: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Encoder frames (P, d) at every k-th position, their position, and seconds a position.

    Of the leading utterances only: more of them would leave too few positions of each.
    """
    leading = samples[:MAX_UTTERANCES]
    last = [x.features if x.features.ndim == 2 else x.features[-1] for x in leading]
    every = max(1, sum(len(x) for x in last) // MAX_FRAMES_SHOWN)
    frames = [x[::every].astype(np.float32) for x in last]
    step = np.concatenate([np.arange(len(x)) for x in frames])
    return np.concatenate(frames), step, every * frame_seconds


def _point_sets(e: Evidence, picked: figures.Picked, step_seconds: float) -> dict[str, PointSet]:
    """What the page can say of each point of the pictures."""

    def of_audio(utterance: np.ndarray, step: np.ndarray, token: np.ndarray) -> PointSet:
        return PointSet("audio", utterance, 100 * step_seconds * (step + 0.5), token)

    sets = {
        "text": PointSet(
            "text",
            e.text.utterance[picked.text],
            e.text.place[picked.text],
            np.concatenate(e.text.ids)[: len(e.text.rows)][picked.text],
        )
    }
    for name, audio in (("before", e.untrained), ("after", e.trained)):
        at = picked.audio
        sets[name] = of_audio(audio.utterance[at], audio.step[at], audio.nearest[at])
        lens = e.lenses["untrained" if name == "before" else "trained"]
        # An utterance inside the LM is one of the leading ones, whose soft tokens are all kept.
        known = lens.utterance <= audio.utterance[-1]
        first = np.searchsorted(audio.utterance, lens.utterance)
        token = np.where(known, audio.nearest[np.where(known, first + lens.step, 0)], 0)
        sets[f"inner-{name}"] = of_audio(lens.utterance, lens.step, token)
    if e.trained.value is not None:
        at = picked.audio
        token = np.maximum(e.trained.value.nearest[at], 0)
        sets["after-values"] = of_audio(e.trained.utterance[at], e.trained.step[at], token)
    own = e.lenses["text"]
    token = np.array([e.text.ids[u][k] for u, k in zip(own.utterance, own.step, strict=True)])
    sets["inner-text"] = PointSet("text", own.utterance, own.step, token)
    return sets


def _step_seconds(s: Setting) -> float:
    return s.trained.stack * s.frame_seconds


def _circumstances(s: Setting, e: Evidence) -> Circumstances:
    lines = s.run.metrics()
    steps = int(s.run.config["train"]["steps"])
    chosen_by = s.run.chosen_by(s.checkpoint)
    judges = name_apart([x for x in s.splits if x.role == "eval"])
    choosers = [name for name, split in judges.items() if bears_name(split, chosen_by)]
    others = dict.fromkeys([*judges, *s.run.clean_splits(s.checkpoint)])
    chose = choosers or (s.run.held_out and not judges and chosen_by != TASKS)
    return Circumstances(
        utterances=len(s.samples),
        speakers=len({str(x.meta["speaker"]) for x in s.samples}),
        seen_in_training=not s.held_out,
        shuffled_training=bool(s.run.config["train"]["shuffle_pairs"]),
        checkpoint=s.checkpoint,
        chosen_by=chosen_by if chose else "",
        clean=[name for name in others if name not in choosers],
        finished=max((int(line["step"]) for line in lines), default=0) >= steps,
        base_model=s.template.kind == "base",
        single_tokens_of=e.trained.detail,
        too_long=s.too_long,
    )


def _utterances(s: Setting, e: Evidence) -> list[Told]:
    """What is known of each utterance, in the report's order."""
    decoded = {u["id"]: u for u in e.evaluated["trained"]["utterances"]}
    shown = e.trained.detail
    found = list[Told]()
    for i, x in enumerate(s.samples):
        u = decoded[x.meta["id"]]
        heard = "hypothesis" in u
        errors = sum(u["errors"]) if heard else 0
        found.append(
            {
                "id": str(x.meta["id"]),
                "speaker": str(x.meta["speaker"]),
                "sex": str(x.meta.get("sex", "")),
                "split": str(x.meta.get("split", "")),
                "text": str(x.meta["text_norm"]),
                "seconds": x.features.shape[-2] * s.frame_seconds,
                "ce": float(u["ce"]),
                "ce_shuffled": float(u["ce_shuffled"]) if "ce_shuffled" in u else None,
                "hypothesis": u["hypothesis"] if heard else None,
                "errors": errors,
                "words": u["words"] if heard else 0,
                "wer": errors / max(u["words"], 1) if heard else 0.0,
                "in_pictures": i < shown,
            }
        )
    return found


def _facts(s: Setting, e: Evidence, request: Request, cascade: Cascade) -> list[tuple[str, str]]:
    """Provenance: where every number comes from. No clock, so that equal inputs give equal bytes."""
    config = s.lm.config
    splits = ", ".join(f"{x.split} ({x.role}, {x.n:,} utterances)" for x in s.splits)
    encoder = s.splits[0].fingerprint_config
    return [
        ("run", s.run.path.name),
        ("checkpoint", f"projector-{s.checkpoint}"),
        ("steps", str(s.run.config["train"]["steps"])),
        ("projector", ", ".join(f"{k} {v}" for k, v in sorted(s.trained.config.items()))),
        ("shards", splits),
        ("features", s.splits[0].fingerprint),
        ("encoder", ", ".join(f"{k} {v}" for k, v in sorted(encoder.items()))),
        ("LM", f"era {s.lm.era.name}, {config.n_layer} layers of width {config.n_embd}, "
               f"{config.vocab_size:,} tokens, {s.template.kind}"),
        ("LM hash", s.lm.fingerprint()),
        ("prompt", repr(s.template.prompt)),
        ("sample", f"{len(s.samples):,} utterances, {len({x.meta['speaker'] for x in s.samples})} "
                   f"speakers, {int(e.trained.n_soft.sum()):,} soft tokens, "
                   f"{sum(len(i) for i in e.text.ids):,} text tokens"),
        ("inside the LM", f"{len(e.lenses['trained'].settled)} utterances"),
        ("cascade", cascade.about),
        ("seed", str(request.seed)),
        ("versions", ", ".join(
            f"{p} {version(p)}" for p in ("nanochat-omni", "numpy", "scikit-learn", "matplotlib")
        ) + f", torch {torch.__version__}"),
    ]  # fmt: skip
