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
on them against the embedded frozen nanochat, a report. Nothing is downloaded.

Each stage is printed as the command it is, so that it can be run alone. Killed, the same command
goes on from there; finished stages are not repeated.
"""
RUN = "demo"


class Summary(TypedDict):
    """OUT/summary.json. Error rates are shares; cross-entropies nats a token; encoder, lm: hashes."""

    wer_heldout: float
    wer_heldout_voice: float
    ce: float
    ce_shuffled: float
    ce_untrained_gap: float
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
    """Run the three stages and sum them up in OUT/summary.json."""
    from omni.formats.files import write_whole

    began = time.monotonic()
    out: Path = args.out
    require_folder(out, "--out")
    shards, runs, report = out / "shards", out / "runs", out / "report.html"
    _stage("omni-extract", "--split", "demo", "--out", str(shards), "--manifests", str(out))
    _stage(
        *("omni-train-projector", "--shards", str(shards), "--lm", "demo", "--resume"),
        *("--runs", str(runs), "--run", RUN, "--seed", str(args.seed)),
    )
    _stage("omni-pca", str(report), "--run", str(runs / RUN), "--shards", str(shards))
    summary = _summary(runs / RUN, report, time.monotonic() - began)
    write_whole(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    print(_table(summary))
    print(f"report: {report}\nsummary: {out / 'summary.json'}")
    return 0


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


def _summary(folder: Path, report: Path, seconds: float) -> Summary:
    """The figures of the run's first and last evaluation."""
    from omni.runs import load_run

    trained = load_run(folder)
    evaluations = [line["eval"] for line in trained.metrics() if "eval" in line]
    first, last = evaluations[0], evaluations[-1]
    known, unheard = last["demo-heldout"], last["demo-heldout-voice"]
    return {
        "wer_heldout": known["wer"],
        "wer_heldout_voice": unheard["wer"],
        "ce": known["ce"],
        "ce_shuffled": known["ce_shuffled"],
        "ce_untrained_gap": first["demo-heldout"]["gap_shuffled"],
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
        ("seconds", f"{summary['seconds']:.0f}"),
    )
    width = max(len(name) for name, _ in rows)
    return "\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
