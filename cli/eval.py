"""`omni-eval RUN`: the figures of a trained projector on any extracted split."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cli import _types
from cli._common import make_parser, run
from cli._loaded import Loaded, load_models
from cli._places import require_file
from omni.device import LM_DTYPES
from omni.encoder import DEFAULT_ENCODER

if TYPE_CHECKING:
    from omni.evaluation.figures import Judged
    from omni.formats.asked import Table
    from omni.formats.shards import Sample
    from omni.formats.splits import SplitIndex
    from omni.runs import Run
    from omni.whisper.decoder import WhisperDecoder

DESCRIPTION = """\
Score a run on held-out shards: cross-entropy with the right audio, somebody else's, silence, mean
audio and none; token accuracy; WER and CER of greedy transcripts; 95 % intervals; a verdict.
Beside them the cascade: what Whisper's own decoder makes of the same features, and the CE of the
LM when it is given that transcript as text. It tells a bad projector from bad features.
"""

# A CPU takes about a third of a second for each; what takes minutes is done only when asked for.
AUTO_CASCADE = 200

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
    ("wer_cascade", "WER, Whisper's own transcripts", ".1%"),
    ("cer_cascade", "CER, Whisper's own transcripts", ".1%"),
    ("ce_cascade", "CE, Whisper's text for audio", ".3f"),
    ("gap_cascade", "gap: right against Whisper's text", "+.3f"),
)


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = make_parser("omni-eval", DESCRIPTION, "[RUN]")
    g = parser.add_argument_group("input")
    g.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        type=_types.some,
        help="the run's folder; the newest if left out",
    )
    g.add_argument("--runs", type=_types.path, metavar="DIR",
        help="where the newest run is looked for; else runs/, then demo/runs/")  # fmt: skip
    g.add_argument("--shards", nargs="+", metavar="DIR", type=_types.some,
        help="folders of extracted splits; by default those of the run")  # fmt: skip
    g.add_argument("--split", nargs="+", metavar="NAME", type=_types.some,
        help="only these splits; by default all that don't train")  # fmt: skip
    g.add_argument("--tasks", nargs="+", default=[], metavar="NAME", type=_types.some,
        help="put the four-option questions of these tables (a name under manifests/tasks/, or a path) "
        "to the run; splits are then judged only where --split names them")  # fmt: skip
    g.add_argument("--curve", action="store_true",
        help="with --tasks: the questions, who transcribes instead, and WER, at adapters' scales of 0 to 1.5")  # fmt: skip
    g.add_argument("--retention", action="store_true",
        help="what was kept: rows of text with --tasks, with adapters and without; the splits' WER beside "
        "that of the run that this one started from")  # fmt: skip
    g.add_argument("--limit", type=_types.whole(), default=0,
        help="utterances of each split, questions of each table; 0: all")  # fmt: skip
    g.add_argument("--language", type=_types.language, metavar="CODE",
        help="of the transcripts: en, fr, zh; by default what the run was trained with")  # fmt: skip
    g = parser.add_argument_group("model")
    g.add_argument("--checkpoint", default="best", choices=["best", "last", "init"])
    g.add_argument("--lm", type=_types.some, help="where the run's LM lies now, if it has moved")
    g.add_argument("--lm-dtype", default="auto", choices=["auto", *LM_DTYPES],
        help="what the LM computes in; auto: fp32 on a CPU, bf16 on a card, fp16 on one without bf16")  # fmt: skip
    g.add_argument("--lora-scale", type=_types.number(0, 1.5), default=1.0,
        help="of the run's adapters; 0: none")  # fmt: skip
    g.add_argument("--encoder", type=_types.some, default=DEFAULT_ENCODER,
        help="folder or hub id of the features' encoder, for the cascade")  # fmt: skip
    g.add_argument("--cascade", default="auto", choices=["auto", "on", "off"],
        help="auto: where Whisper's decoder lies on this machine, and on a CPU for at most "
        f"{AUTO_CASCADE} transcripts a split; on: download it if need be, any number")  # fmt: skip
    g = parser.add_argument_group("output")
    g.add_argument(
        "--json", type=_types.path, metavar="FILE", help="write all figures, one entry an utterance"
    )
    g.add_argument(
        "--examples", type=_types.whole(), default=8, help="transcripts to show of each split"
    )
    g = parser.add_argument_group("speed")
    g.add_argument(
        "--batch-size", type=_types.whole(1), default=32, help="utterances a forward pass"
    )
    g.add_argument(
        "--decode-limit", type=_types.whole(), help="transcribe at most so many of each split"
    )
    g.add_argument("--device", type=_types.device, default="auto", help="auto, cpu, cuda, cuda:1")
    return parser


def command(args: argparse.Namespace) -> int:
    """Evaluate, print, and write the JSON."""
    from cli._ask import ask, open_tables, print_table
    from cli._kept import parent_of
    from omni.device import pick_device
    from omni.formats.files import write_whole
    from omni.runs import load_run, newest_run

    if args.json:
        require_file(args.json, "--json")
    trained = load_run(args.run) if args.run else newest_run(args.runs)
    _check_options(args, trained)
    tables = open_tables(args.tasks, trained)
    found = _find(trained, args)
    # Questions instead of transcripts, unless both are asked for.
    both = args.split or args.retention or not tables
    splits, sets = _sets(trained, found, args) if both else ([], {})
    parent = parent_of(trained) if args.retention else None
    for split in splits:
        trained.check_features(split.fingerprint, split.split)
    device = pick_device(args.device)
    loaded = load_models(args, trained, device)
    print(f"{trained.path}, checkpoint {args.checkpoint}")
    decoder = _load_decoder(args, loaded)
    judged = _judge(loaded, splits, sets, decoder, parent, args)
    results: dict[str, object] = dict(judged)
    asked: dict[str, object] = {}
    for table in tables:
        figures = ask(table, loaded, found, _if_quick(decoder, table, args, device), args)
        print_table(table.name, figures)
        asked[table.name] = figures
    if asked:
        results["tasks"] = asked
    if args.json:
        write_whole(args.json, (json.dumps(results, indent=1) + "\n").encode())
    return 0


def _check_options(args: argparse.Namespace, trained: "Run") -> None:
    """Refuse what would be measured of nothing, before anything is loaded."""
    from omni.errors import OmniError

    if args.curve and not args.tasks:
        raise OmniError("--curve needs a table of questions", mend="give one with --tasks")
    if args.curve and "lora" not in trained.config:
        raise OmniError("the run has no adapters", str(trained.path), "leave --curve out")


def _judge(
    loaded: Loaded,
    splits: Sequence["SplitIndex"],
    sets: Mapping[str, Callable[[], list["Sample"]]],
    decoder: "WhisperDecoder | None",
    parent: "Run | None",
    args: argparse.Namespace,
) -> dict[str, "Judged"]:
    """The figures of these splits, each printed as soon as it is judged; beside those of `parent`."""
    from cli._kept import kept
    from omni.bridge.room import make_room, that_fit
    from omni.encoder import frames_per_second
    from omni.errors import printable
    from omni.evaluation.cascade import add_cascade
    from omni.evaluation.evaluate import evaluate
    from omni.evaluation.figures import Judged
    from omni.evaluation.verdict import cascade_verdict, selection_note, verdict

    trained, lm, tok, template = loaded.run, loaded.lm, loaded.tok, loaded.template
    room = make_room(lm, tok, template, loaded.projector.stack, stretch=0.0)
    results: dict[str, Judged] = {}
    language = args.language or trained.language
    chosen_by = _name_here(trained.chosen_by(args.checkpoint), splits)
    for name, read in sets.items():
        samples, too_long = that_fit(read(), room)
        if too_long:
            print(printable(f"\n{name}: {too_long}"))
        figures = evaluate(
            lm, tok, loaded.projector, samples, template, args.batch_size,
            args.examples, args.decode_limit, language, frames_per_second(loaded.features),
        )  # fmt: skip
        unasked = args.cascade == "auto" and loaded.device == "cpu"
        if decoder is not None and unasked and figures["n_decoded"] > AUTO_CASCADE:
            print(
                f"\nno cascade of {name}: {figures['n_decoded']} transcripts take a CPU long: "
                f"--cascade on, or --decode-limit {AUTO_CASCADE}"
            )
        elif decoder is not None:
            add_cascade(
                figures, lm, tok, template, samples, decoder.transcribe, args.batch_size, language
            )
        judged = Judged(**figures, verdict=verdict(figures))
        beside = cascade_verdict(figures)
        if beside is not None:
            judged["cascade_verdict"] = beside
        if parent is not None and (beside_it := kept(parent, loaded, samples, figures, args)):
            judged["kept"] = beside_it
        if name == chosen_by:
            others = [*sets, *trained.clean_splits(args.checkpoint)]
            clean = [other for other in dict.fromkeys(others) if other != name]
            judged["selection"] = selection_note(name, clean)
        results[name] = judged
        _print(name, judged)
    return results


def _if_quick(
    decoder: "WhisperDecoder | None", table: "Table", args: argparse.Namespace, device: str
) -> "WhisperDecoder | None":
    """The decoder, or None and a line where transcripts would take a CPU long and nobody asked."""
    from omni.errors import printable

    n = len({task.id for task in table.tasks.rows if task.options and task.id})
    n = min(n, args.limit or n)
    if decoder is None or args.cascade == "on" or device != "cpu" or n <= AUTO_CASCADE:
        return decoder
    line = f"no cascade of {table.name}: {n} transcripts take a CPU long: --cascade on"
    print(printable(f"\n{line}, or --limit {AUTO_CASCADE}"))
    return None


def _find(trained: "Run", args: argparse.Namespace) -> list["SplitIndex"]:
    """All splits below the folders that are asked for, or the run's."""
    from omni.formats.splits import find_splits

    options = trained.config["train"]
    roots = args.shards or [*options["shards"], *options["eval_shards"]]
    return [split for root in roots for split in find_splits(root)]


def _sets(
    trained: "Run", found: Sequence["SplitIndex"], args: argparse.Namespace
) -> tuple[list["SplitIndex"], dict[str, Callable[[], list["Sample"]]]]:
    """The splits that are asked for, and by name how to read what is judged.

    Raises:
        OmniError: there is none.
    """
    from omni.errors import OmniError
    from omni.formats.run_files import HELD_OUT_NAME, TASKS
    from omni.formats.splits import name_apart, read_ids, read_split

    splits = [s for s in found if (s.split in args.split if args.split else s.role == "eval")]
    sets: dict[str, Callable[[], list[Sample]]] = {
        name: partial(read_split, split, args.limit) for name, split in name_apart(splits).items()
    }
    if trained.held_out and not (args.shards or args.split):
        splits = list(found)
        name = trained.config["select"]  # nothing else that it had could choose, but for its table
        name = HELD_OUT_NAME if name == TASKS else name
        sets[name] = partial(read_ids, found, trained.held_out, args.limit)
    if not sets:
        options = trained.config["train"]
        roots = args.shards or [*options["shards"], *options["eval_shards"]]
        raise OmniError(
            "no split to evaluate", ", ".join(args.split or roots), "extract one, or name one"
        )
    return splits, sets


def _name_here(chosen_by: str, splits: Sequence["SplitIndex"]) -> str:
    """What the split that chose the checkpoint is called among these; they may be others than the
    trainer had to tell apart."""
    from omni.formats.splits import bears_name, name_apart

    names = (name for name, split in name_apart(splits).items() if bears_name(split, chosen_by))
    return next(names, chosen_by) if chosen_by else ""


def _load_decoder(args: argparse.Namespace, loaded: Loaded) -> "WhisperDecoder | None":
    """Whisper's decoder for these features, or None and a line that says why not."""
    from omni.errors import OmniError, printable
    from omni.whisper.decoder import load_decoder

    if args.cascade == "off":
        return None
    if args.decode_limit == 0:
        print("no cascade: nothing is transcribed (--decode-limit 0)")
        return None
    try:
        decoder = load_decoder(
            args.encoder, loaded.features, loaded.device, network=args.cascade == "on",
            language=args.language or loaded.run.language,
        )  # fmt: skip
    except OmniError as error:
        print(printable(f"no cascade: {error}"))
        return None
    print(f"cascade: decoder of {args.encoder} from {decoder.source}")
    return decoder


def _print(name: str, judged: "Judged") -> None:
    """The table of one split, its examples and what they mean; nothing that a terminal would obey."""
    from omni.errors import printable
    from omni.evaluation.figures import as_intervals, as_numbers

    print(f"\n{printable(name)}")
    numbers, intervals = as_numbers(judged), as_intervals(judged["intervals"])
    for key, words, form in ROWS:
        if key not in numbers:
            continue
        line = f"  {words:<36}{format(numbers[key], form):>9}"
        if key in intervals:
            low, high = intervals[key]
            line += f"   {low:{form}} to {high:{form}}"
        print(line)
    for example in judged["examples"]:
        rate = f"[{example['wer']:.0%}]" if example["reference"] else "[nothing said]"
        print(f"  {rate} {printable(example['reference'])}")
        print(f"     -> {printable(example['hypothesis'])}")
        if "cascade" in example:
            print(f"     Whisper: {printable(example['cascade'])}")
    if then := judged.get("kept"):
        more = 100 * (then["after"] - then["before"])
        rates = (
            f"{then['before']:.1%} before ({printable(then['parent'])}), {then['after']:.1%} now"
        )
        print(f"  error rate {rates}: {more:+.1f} points")
    for said in (judged["verdict"], judged.get("cascade_verdict"), judged.get("selection")):
        if said:
            print(f"  {printable(said)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    return run(build_parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
