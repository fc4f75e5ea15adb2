"""`omni-train-projector`: train a projector on extracted shards against a frozen nanochat."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cli import _types
from cli._common import make_parser, run
from cli._places import require_folder
from omni.device import LM_DTYPES

Kinds = dict[str, Callable[[str], float]]  # of an option's number, by its name
DESCRIPTION = """\
Train a projector that turns Whisper features into soft tokens for a frozen nanochat; then, with
--tasks, --from and --lora, teach both to answer what is asked.

Trains on the splits below --shards whose role is training, evaluates on the others. Several
ranks: torchrun --nproc-per-node N -m -- cli.train_projector ... (the -- is needed: torchrun would
take --run for one of its own).
"""


def build_parser() -> argparse.ArgumentParser:
    """All options; each is a field of `train.options.TrainOptions`, or --run and --resume."""
    from train.options import BOUNDS, TrainOptions

    default = {f.name: f.default for f in fields(TrainOptions)}
    kind = {name: _types.within(bounds) for name, bounds in BOUNDS.items()}
    parser = make_parser("omni-train-projector", DESCRIPTION)
    _add_input_and_model(parser, default, kind)
    _add_recipe(parser, default, kind)
    _add_output_and_speed(parser, default, kind)
    return parser


def _add_input_and_model(
    parser: argparse.ArgumentParser, default: dict[str, Any], kind: Kinds
) -> None:
    g = parser.add_argument_group("input")
    g.add_argument("--shards", nargs="+", default=["shards"], metavar="DIR", type=_types.some,
        help="folders or URLs (s3://...) of extracted splits; globs and brace lists too")  # fmt: skip
    g.add_argument("--weights", nargs="+", type=kind["weights"], default=[], metavar="W",
        help="how often each --shards folder is seen in a pass (2, 0.5); once by default")  # fmt: skip
    g.add_argument("--eval-shards", nargs="+", default=[], metavar="DIR", type=_types.some,
        help="evaluate on the splits below these instead")  # fmt: skip
    g.add_argument("--shuffle-pairs", action="store_true",
        help="control: train on wrong pairs of audio and text")  # fmt: skip
    g.add_argument("--tasks", type=_types.some, default=default["tasks"], metavar="NAME",
        help="ask what this table of omni-mix asks, instead of repeating: its name, or its path")  # fmt: skip
    g.add_argument("--turns", type=kind["turns"], default=default["turns"],
        help="questions about an utterance that share a row, and its soft tokens")  # fmt: skip

    g = parser.add_argument_group("model")
    g.add_argument("--from", dest="parent", type=_types.some, default=default["parent"], metavar="RUN",
        help="start from this run's projector, with its LM and prompt, and from its adapters if it has any")  # fmt: skip
    g.add_argument("--lm", type=_types.some, default=default["lm"],
        help="nanochat: auto (your newest, else the demo LM), demo, a folder, d12, sft:d20")  # fmt: skip
    g.add_argument("--lm-dtype", default="auto", choices=["auto", *LM_DTYPES],
        help="what the LM computes in; auto: fp32 on a CPU, bf16 on a card, fp16 on one without bf16")  # fmt: skip
    g.add_argument("--prompt", help="text after the audio; by default what the checkpoint needs")
    g.add_argument("--audio-first", action="store_true",
        help="soft tokens before bos instead of after it, for comparison")  # fmt: skip
    g.add_argument("--projector", default=default["projector"], choices=["mlp", "conv", "linear"])
    g.add_argument("--stack", type=kind["stack"], default=default["stack"],
        help="Whisper frames (20 ms) to a soft token")  # fmt: skip
    g.add_argument("--hidden", type=kind["hidden"], default=default["hidden"],
        help="width inside")  # fmt: skip
    g.add_argument("--audio-ve", default=default["audio_ve"], choices=["learned", "shared", "zero"],
        help="value-embedding rows of audio")  # fmt: skip
    g.add_argument("--lora", type=kind["lora"], default=default["lora"], metavar="RANK",
        help="train adapters of the LM too, which act in rows that hold audio; 0: none")  # fmt: skip
    g.add_argument("--lora-alpha", type=kind["lora_alpha"], default=default["lora_alpha"],
        help="what they say is multiplied by alpha / rank; 0: twice the rank")  # fmt: skip
    g.add_argument("--lora-dropout", type=kind["lora_dropout"], default=default["lora_dropout"],
        help="share of channels that the adapters don't see in training")  # fmt: skip
    g.add_argument("--lora-targets", default=default["lora_targets"], choices=["all", "attn"],
        help="all six matrices of a layer, or those of attention")  # fmt: skip
    g.add_argument("--lora-everywhere", action="store_true",
        help="for comparison: adapters act in rows of text too, and the table's rows of text train them")  # fmt: skip


def _add_recipe(parser: argparse.ArgumentParser, default: dict[str, Any], kind: Kinds) -> None:
    g = parser.add_argument_group("recipe")
    g.add_argument("--steps", type=kind["steps"], default=default["steps"],
        help="optimiser steps; 0: ten passes over the data, 100 to 8,000 steps")  # fmt: skip
    g.add_argument("--batch-size", type=kind["batch_size"], default=default["batch_size"],
        help="utterances a step, over all ranks")  # fmt: skip
    g.add_argument("--batch-frames", type=kind["batch_frames"], default=default["batch_frames"],
        help="instead: as many utterances as pad to so many frames (50 a second); 0: off")  # fmt: skip
    g.add_argument("--lr", type=kind["lr"], default=default["lr"],
        help="peak learning rate")  # fmt: skip
    g.add_argument("--lora-lr", type=kind["lora_lr"], default=default["lora_lr"],
        help="peak learning rate of the adapters")  # fmt: skip
    g.add_argument("--freeze-projector", action="store_true",
        help="train the adapters alone")  # fmt: skip
    g.add_argument("--self-loss", default=default["self_loss"], choices=["ce", "kl"],
        help="of rows that the LM answered itself: of its words, or of its whole distribution")  # fmt: skip
    g.add_argument("--warmup", type=kind["warmup"], default=default["warmup"],
        help="steps to the peak")  # fmt: skip
    g.add_argument("--clip", type=kind["clip"], default=default["clip"],
        help="largest gradient norm")  # fmt: skip
    g.add_argument("--ctc-weight", type=kind["ctc_weight"], default=default["ctc_weight"],
        help="weight of a CTC loss of soft tokens against the LM's embedding table")  # fmt: skip
    for name, text in (
        ("noise", "noise on frames, in shares of each channel's spread"),
        ("gain", "random scale and offset of each channel, in shares of its spread"),
        ("mask", "share of frames set to zero"),
        ("stretch", "largest change of speaking rate"),
    ):
        g.add_argument(f"--{name}", type=kind[name], default=default[name], help=text)
    g.add_argument("--buffer", type=kind["buffer"], default=default["buffer"],
        help="samples shuffled together")  # fmt: skip
    g.add_argument("--seed", type=kind["seed"], default=default["seed"],
        help="of the projector, the batches and the augmentation")  # fmt: skip


def _add_output_and_speed(
    parser: argparse.ArgumentParser, default: dict[str, Any], kind: Kinds
) -> None:
    g = parser.add_argument_group("output")
    g.add_argument("--run", type=_types.name, default="projector", metavar="NAME",
        help="the run's folder is RUNS/NAME")  # fmt: skip
    g.add_argument("--runs", type=_types.path, default=Path("runs"), metavar="DIR",
        help="where runs are kept")  # fmt: skip
    g.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    g.add_argument("--allow-mixed", action="store_true",
        help="resume in another dtype or on another kind of device than the run was begun in; "
        "provenance says so")  # fmt: skip
    g.add_argument("--eval-every", type=kind["eval_every"], default=default["eval_every"],
        help="steps between evaluations; 0: a fifth of all")  # fmt: skip
    g.add_argument("--save-every", type=kind["save_every"], default=default["save_every"],
        help="steps between checkpoints; 0: as evaluations")  # fmt: skip
    g.add_argument("--eval-limit", type=kind["eval_limit"], default=default["eval_limit"],
        help="utterances of each split to evaluate; 0: all")  # fmt: skip
    g.add_argument("--decode-limit", type=kind["decode_limit"], default=default["decode_limit"],
        help="of these, utterances to transcribe for WER")  # fmt: skip
    g.add_argument("--eval-tasks", type=_types.some, default=default["eval_tasks"], metavar="NAME",
        help="four-option questions about the evaluation splits, asked at each evaluation")  # fmt: skip
    g.add_argument("--language", type=_types.language, default=default["language"], metavar="CODE",
        help="of the transcripts (en, fr, zh): how WER compares them")  # fmt: skip
    g.add_argument("--wandb", default=default["wandb"],
        choices=["auto", "online", "offline", "disabled"],
        help="auto: online with a key, else offline")  # fmt: skip

    g = parser.add_argument_group("speed")
    g.add_argument("--micro-batch-size", type=kind["micro_batch_size"], default=default["micro_batch_size"],
        help="utterances in one forward pass; 0: the whole batch. Less memory, same result")  # fmt: skip
    g.add_argument("--checkpoint-activations", action="store_true",
        help="compute the LM's layers twice instead of keeping them: less memory, same result")  # fmt: skip
    g.add_argument("--compile", action="store_true",
        help="torch.compile projector and LM: a minute at the start, then faster steps on a GPU")  # fmt: skip
    g.add_argument("--bucket", type=kind["bucket"], default=default["bucket"], metavar="FRAMES",
        help="pad each batch to a multiple of so many frames, its rows likewise: fewer shapes, for --compile "
        "and the kernels' caches; sums round differently")  # fmt: skip
    g.add_argument("--workers", type=_types.auto_or(kind["workers"]), default="auto",
        help="processes that read shards; 0: a thread; auto: 0 on a CPU; beside a GPU one for each core of the "
        "rank's share but one, at most 8 and as many as /dev/shm has room for. Same result")  # fmt: skip
    g.add_argument("--device", type=_types.device, default=default["device"],
        help="auto, cpu, cuda, cuda:1")  # fmt: skip


def command(args: argparse.Namespace) -> int:
    """Train, and say where the run lies."""
    from omni.tracking import wandb_mode
    from train.loop import train
    from train.options import TrainOptions

    values: dict[str, Any] = {f.name: getattr(args, f.name) for f in fields(TrainOptions)}
    for name in ("shards", "weights", "eval_shards"):
        values[name] = tuple(values[name])
    options = TrainOptions(**values)
    folder: Path = args.runs / args.run
    require_folder(folder, "--runs")
    wandb_mode(args.wandb)  # refused before there is a run
    train(options, folder, args.resume, ["omni-train-projector", *sys.argv[1:]])
    print(f"run: {folder}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    return run(build_parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
