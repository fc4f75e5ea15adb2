"""`omni-demo`: extract, train, report on the embedded corpus and LM, each by its own command."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from cli import _types
from cli._common import make_parser, run
from cli._places import require_folder
from omni.errors import OmniError

DESCRIPTION = """\
Hear the whole path once: the embedded speech through real Whisper into shards, a projector trained
on them against the embedded frozen nanochat, then adapters that answer what is asked, the 200 questions
of AudioBench-mini, a report. Nothing is downloaded.

Each stage is printed as the command it is, so that it can be run alone. Killed, the same command
goes on from there; finished stages are not repeated.
"""
RUN, ANSWERS = "demo", "answers"
# Windows as long as the clip: a sixth of the encoder's work. Whisper then mishears 1 word in 100 more.
WINDOW = ("--window", "fit")
# Half of what is asked is about the words, a third is to repeat them; the voice is asked about as well.
MIX = ("--rows", "8000", "--shares", "repeat=0.3,content=0.5,voice=0.2")
# Adapters start from nothing, and this LM is small: ten times the default rate, beside a projector that
# goes on at half of its own. It could answer before, about text: few steps are enough.
ADAPTERS = (
    *("--lora", "16", "--lora-lr", "1e-3", "--lr", "1e-3"),
    *("--steps", "100", "--batch-size", "16", "--eval-every", "50"),
)


class Summary(TypedDict):
    """OUT/summary.json. Error rates and accuracies are shares; cross-entropies nats a token; encoder, lm:
    hashes. mini_*: AudioBench-mini's questions on words, right in the mean of four rotations, in all four
    (strict), without audio, with another utterance's."""

    wer_heldout: float
    wer_heldout_voice: float
    ce: float
    ce_shuffled: float
    ce_untrained_gap: float
    mini_accuracy: float
    mini_strict: float
    mini_blind: float
    mini_shuffled: float
    encoder: str
    lm: str
    seconds: float
    report: str


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, demo, argv)


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = make_parser("omni-demo", DESCRIPTION)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", type=_types.path, default=Path("demo"), help="folder of everything it makes"
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--seed", type=_types.seed, default=0, help="of the projector and of the batches"
    )
    return parser


def demo(args: argparse.Namespace) -> int:
    """Run the stages and sum them up in OUT/summary.json."""
    from omni.formats.files import write_whole

    began = time.monotonic()
    out: Path = args.out
    require_folder(out, "--out")
    report = out / "report.html"
    for stage in stages(out, args.seed):
        _stage(*stage)
    summary = _summary(out, report, time.monotonic() - began)
    write_whole(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    print(_table(summary))
    print(f"report: {report}\nsummary: {out / 'summary.json'}")
    return 0


def stages(out: Path, seed: int) -> list[tuple[str, ...]]:
    """The commands, in order.

    The mini's features lie apart from the training's: what judges at the end is no evaluation split of a
    run, on which its best checkpoint would be chosen.
    """
    from extract.corpora.mini import MINI_ROOT

    shards, mini, runs, table = out / "shards", out / "mini", out / "runs", out / "answers.parquet"
    questions = MINI_ROOT / "mini.parquet"
    if questions.is_relative_to(Path.cwd()):  # as a reader would type it
        questions = questions.relative_to(Path.cwd())
    extract = ("omni-extract", "--split")
    train = ("omni-train-projector", "--shards", str(shards), "--resume", "--runs", str(runs))
    seeded = ("--seed", str(seed))
    return [
        (*extract, "demo", *WINDOW, "--out", str(shards), "--manifests", str(out)),
        (*extract, "audiobench-mini", *WINDOW, "--out", str(mini), "--manifests", str(out)),
        (*train, "--run", RUN, "--lm", "demo", *seeded),
        ("omni-mix", "--shards", str(shards / "demo-train"), "--out", str(table), *MIX),
        (*train, "--run", ANSWERS, "--from", str(runs / RUN), "--tasks", str(table), *ADAPTERS, *seeded),
        ("omni-pca", str(out / "report.html"), "--run", str(runs / ANSWERS), "--shards", str(shards),
            "--shards", str(mini), "--tasks", str(questions), "--manifests", str(out)),
    ]  # fmt: skip


def _stage(command: str, *options: str) -> None:
    """Print one command and run it in a process of its own, as a reader would."""
    print(f"\n$ {shlex.join([command, *options])}", flush=True)
    module = "cli." + command.removeprefix("omni-").replace("-", "_")
    status = _wait(subprocess.Popen([sys.executable, "-m", module, *options]))
    if status:
        raise OmniError(
            f"{command} ended with status {status}",
            mend="mend what it says above and run the demo again; it goes on from there",
            exit_code=status,
        )


def _wait(stage: subprocess.Popen[bytes]) -> int:
    """The stage's exit status. Whatever ends us ends the stage first, and waits for it.

    Ctrl-C on a terminal reaches the stage by itself; SIGTERM, which it then doesn't heed, makes sure
    where the signal was ours alone. Ctrl-C once more, while it cleans up, kills it.
    """
    try:
        status = stage.wait()
    except BaseException:
        try:
            stage.terminate()
            stage.wait()
        except BaseException:
            stage.kill()
            stage.wait()
            raise
        raise
    return status if status >= 0 else 128 - status  # ended by a signal: as a shell shows it


def _summary(out: Path, report: Path, seconds: float) -> Summary:
    """The figures of the first run's first and last evaluation, and the second's answers."""
    from omni.runs import load_run

    trained = load_run(out / "runs" / RUN)
    words = json.loads(report.with_suffix(".json").read_text())["runs"][0]["tasks"]["mini"]["words"]
    evaluations = [line["eval"] for line in trained.metrics() if "eval" in line]
    first, last = evaluations[0], evaluations[-1]
    known, unheard = last["demo-heldout"], last["demo-heldout-voice"]
    return {
        "wer_heldout": known["wer"],
        "wer_heldout_voice": unheard["wer"],
        "ce": known["ce"],
        "ce_shuffled": known["ce_shuffled"],
        "ce_untrained_gap": first["demo-heldout"]["gap_shuffled"],
        "mini_accuracy": words["accuracy"],
        "mini_strict": words["strict"],
        "mini_blind": words["controls"]["blind"]["accuracy"],
        "mini_shuffled": words["controls"]["shuffled"]["accuracy"],
        "encoder": trained.provenance["fingerprint_config"]["encoder"],
        "lm": trained.provenance["lm_hash"],
        "seconds": round(seconds, 1),
        "report": str(report),
    }


def _table(summary: Summary) -> str:
    rows = (
        ("WER, unseen sentences, known voices", f"{summary['wer_heldout']:.1%}"),
        ("WER, unseen sentences, an unheard voice", f"{summary['wer_heldout_voice']:.1%}"),
        ("cross-entropy with the right audio", f"{summary['ce']:.3f} nats/token"),
        ("cross-entropy with somebody else's audio", f"{summary['ce_shuffled']:.3f} nats/token"),
        ("the same gap before training", f"{summary['ce_untrained_gap']:+.3f} nats/token"),
        ("questions about words answered, of 80", f"{summary['mini_accuracy']:.1%}"),
        ("in all four orders of their options", f"{summary['mini_strict']:.1%}"),
        ("without audio", f"{summary['mini_blind']:.1%}"),
        ("with somebody else's audio", f"{summary['mini_shuffled']:.1%}"),
        ("seconds", f"{summary['seconds']:.0f}"),
    )
    width = max(len(name) for name, _ in rows)
    return "\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
