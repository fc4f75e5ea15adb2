"""`omni-eval RUN`: the figures of a trained projector on any extracted split."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cli._common import make_parser, run

DESCRIPTION = """\
Score a run on held-out shards: cross-entropy with the right audio, somebody else's, silence, mean
audio and none; token accuracy; WER and CER of greedy transcripts; 95 % intervals; a verdict.
"""

# Rows of the table: figure, what it says, how it is printed.
ROWS = (
    ("n", "utterances", "d"),
    ("ce", "CE, right audio (nats a token)", ".3f"),
    ("ce_shuffled", "CE, somebody else's audio", ".3f"),
    ("gap_shuffled", "gap: right against somebody else's", "+.3f"),
    ("gap_zero", "gap: right against silence", "+.3f"),
    ("gap_mean", "gap: right against mean audio", "+.3f"),
    ("gap_none", "gap: right against no audio", "+.3f"),
    ("bits_per_byte", "bits per byte of text", ".3f"),
    ("token_accuracy", "token accuracy, teacher-forced", ".1%"),
    ("wer", "WER, greedy", ".1%"),
    ("wer_s", "  substitutions", ".1%"),
    ("wer_d", "  deletions", ".1%"),
    ("wer_i", "  insertions", ".1%"),
    ("cer", "CER", ".1%"),
    ("empty_rate", "empty transcripts", ".1%"),
    ("repetition_rate", "transcripts that loop", ".1%"),
)


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = make_parser("omni-eval", DESCRIPTION)
    g = parser.add_argument_group("input")
    g.add_argument("run", nargs="?", help="the run's folder; the newest below runs/ if left out")
    g.add_argument("--shards", nargs="+", metavar="DIR",
        help="folders of extracted splits; by default those of the run")  # fmt: skip
    g.add_argument("--split", nargs="+", metavar="NAME",
        help="only these splits; by default all that don't train")  # fmt: skip
    g.add_argument("--limit", type=int, default=0, help="utterances of each split; 0: all")
    g = parser.add_argument_group("model")
    g.add_argument("--checkpoint", default="best", choices=["best", "last", "init"])
    g.add_argument("--lm", help="where the run's LM lies now, if it has moved")
    g = parser.add_argument_group("output")
    g.add_argument("--json", metavar="FILE", help="write all figures, one entry an utterance")
    g.add_argument("--examples", type=int, default=8, help="transcripts to show of each split")
    g = parser.add_argument_group("speed")
    g.add_argument("--batch-size", type=int, default=32, help="utterances a forward pass")
    g.add_argument("--decode-limit", type=int, help="transcribe at most so many of each split")
    g.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    return parser


def command(args: argparse.Namespace) -> int:
    """Evaluate, print, and write the JSON."""

    from omni.device import pick_device
    from omni.errors import OmniError
    from omni.evaluate import evaluate
    from omni.nanochat import load_checkpoint
    from omni.prompt import Template
    from omni.runs import atomic, load_run, newest_run
    from omni.verdict import verdict
    from train.data import HELD_OUT_NAME, find_splits, read_ids, read_split

    trained = load_run(args.run) if args.run else newest_run()
    options = trained.config["train"]
    roots = args.shards or [*options["shards"], *options["eval_shards"]]
    found = [split for root in roots for split in find_splits(root)]
    splits = [s for s in found if (s.split in args.split if args.split else s.role == "eval")]
    sets = {split.split: partial(read_split, split, args.limit) for split in splits}
    if trained.held_out and not (args.shards or args.split):
        splits = found
        sets[HELD_OUT_NAME] = partial(read_ids, found, trained.held_out, args.limit)
    if not sets:
        raise OmniError(
            "no split to evaluate", ", ".join(args.split or roots), "extract one, or name one"
        )
    for split in splits:
        trained.check_features(split.fingerprint, split.split)
    device = pick_device(args.device)
    lm, tok, _ = load_checkpoint(args.lm or trained.config["lm"], device)
    trained.check_lm(lm)
    projector = trained.projector(args.checkpoint, device)
    template = Template(**trained.config["template"])
    print(f"{trained.path}, checkpoint {args.checkpoint}")
    results: dict[str, Any] = {}
    for name, read in sets.items():
        figures = evaluate(
            lm, tok, projector, read(), template, args.batch_size,
            args.examples, args.decode_limit,
        )  # fmt: skip
        results[name] = figures | {"verdict": verdict(figures)}
        _print(name, results[name])
    if args.json:
        with atomic(Path(args.json)) as out:
            out.write((json.dumps(results, indent=1) + "\n").encode())
    return 0


def _print(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}")
    for key, words, form in ROWS:
        if key not in figures:
            continue
        line = f"  {words:<36}{format(figures[key], form):>9}"
        if key in figures["intervals"]:
            low, high = figures["intervals"][key]
            line += f"   {low:{form}} to {high:{form}}"
        print(line)
    for example in figures["examples"]:
        print(f"  [{example['wer']:.0%}] {example['reference']}\n     -> {example['hypothesis']}")
    print(f"  {figures['verdict']}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    return run(build_parser(), command, argv)


if __name__ == "__main__":
    sys.exit(main())
