"""`omni-pca`: the alignment report of a run, as one HTML file and a JSON file of its numbers."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli import _types
from cli._common import make_parser, run
from cli._places import require_file, require_folder
from omni.device import LM_DTYPES
from omni.encoder import DEFAULT_ENCODER

DESCRIPTION = """\
Does projected audio land where text lives, and does the frozen LM listen to it? Writes one page that
opens from disk (numbers with controls first, pictures second) and report.json with the same numbers.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    return run(build_parser, command, argv)


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-pca", DESCRIPTION, "[OUT]")
    parser.add_argument(
        "out",
        nargs="?",
        metavar="OUT",
        type=_types.path,
        default="report.html",
        help="the page to write",
    )
    given = parser.add_argument_group("input")
    given.add_argument(
        "--run", action="append", default=[], metavar="RUN", type=_types.some,
        help="run folder; again for runs side by side (default: the newest)",
    )  # fmt: skip
    given.add_argument(
        "--runs", type=_types.path, metavar="DIR",
        help="where the newest run is looked for; else runs/, then demo/runs/",
    )  # fmt: skip
    given.add_argument(
        "--shards", action="append", default=[], metavar="DIR", type=_types.some,
        help="shard folder, its held-out splits are used (default: those of the run)",
    )  # fmt: skip
    given.add_argument("--tasks", nargs="+", default=[], metavar="NAME", type=_types.some,
        help="put the four-option questions of these tables (a name under manifests/tasks/, or a path) "
        "to each run, in a section of their own")  # fmt: skip
    given.add_argument("--manifests", type=_types.path, metavar="DIR", default="manifests",
        help="where the sound of what is asked about is found, by its split's manifest")  # fmt: skip
    given.add_argument(
        "--utterances", type=_types.whole(1), default=200, help="held-out utterances to use"
    )
    given.add_argument(
        "--seed", type=_types.seed, default=0, help="of samples, resamples and folds"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--lm", type=_types.some, help="LM checkpoint (default: the run's)")
    model.add_argument("--lm-dtype", default="auto", choices=["auto", *LM_DTYPES],
        help="what the LM computes in; auto: fp32 on a CPU, bf16 on a card, fp16 on one without bf16")  # fmt: skip
    model.add_argument("--encoder", type=_types.some, default=DEFAULT_ENCODER,
        help="folder or hub id of the features' encoder, for the cascade")  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument(
        "--points", type=_types.whole(1), default=5000, help="points in a picture, at most"
    )
    output.add_argument(
        "--png",
        type=_types.path,
        metavar="DIR",
        help="also write the figures as PNG files, for a paper",
    )
    output.add_argument(
        "--export-projector", type=_types.path, metavar="DIR",
        help="also write the points as TSV for TensorBoard's embedding projector",
    )  # fmt: skip
    output.add_argument(
        "--wandb", choices=("auto", "online", "offline", "disabled"), default="disabled",
        help="also log numbers and figures to the run's wandb page; auto: online with a key",
    )  # fmt: skip
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--batch-size", type=_types.whole(1), default=32, help="utterances a forward pass, at most"
    )
    speed.add_argument(
        "--device", type=_types.device, default="auto", help="auto, cpu, cuda, cuda:1"
    )
    return parser


def command(args: argparse.Namespace) -> int:
    """Measure, draw, write."""
    # Torch and scikit-learn take seconds to import: `--help` does not wait for them.

    from analyze.examine import Request
    from analyze.page import export
    from analyze.report import make_report
    from omni.device import pick_device
    from omni.errors import OmniError
    from omni.formats.splits import find_splits
    from omni.runs import load_run, newest_run
    from omni.tracking import wandb_mode

    start = time.perf_counter()
    if args.out.suffix == ".json":
        raise OmniError("the page can't have the numbers' name", str(args.out), "call it .html")
    require_file(args.out, "OUT")
    for option in ("png", "export_projector"):
        if getattr(args, option):
            require_folder(getattr(args, option), f"--{option.replace('_', '-')}")
    wandb_mode(args.wandb)  # refused now rather than after the report
    device = pick_device(args.device)
    chosen = [load_run(path) for path in args.run] or [newest_run(args.runs)]
    request = Request(
        shards=args.shards,
        utterances=args.utterances,
        seed=args.seed,
        lm=args.lm or "",
        device=device,
        points=args.points,
        find=find_splits,
        encoder=args.encoder,
        lm_dtype=args.lm_dtype,
        batch=args.batch_size,
        tasks=args.tasks,
        manifests=str(args.manifests),
    )
    report = make_report(args.out, chosen, request, _Progress(), _announce)
    for view in report.views:
        print(f"{view.name}: {view.verdict.headline.lower()}. {' '.join(view.verdict.sentences)}")
        for table in view.tables:
            print(f"{view.name}, {table.name}: {table.figures['all'].get('verdict', '')}")
    if args.png:
        print(f"wrote {len(export.write_png(args.png, report.views))} figures to {args.png}")
    if args.export_projector:
        export.write_projector(args.export_projector, report.views)
        print(f"wrote the points to {args.export_projector}")
    export.log_wandb(report.views, chosen, args.wandb)
    size = Path(report.html).stat().st_size / 1e6
    took = time.perf_counter() - start
    print(f"wrote {report.html} ({size:.1f} MB) and {report.json} in {took:.0f} s")
    return 0


class _Progress:
    """A line that rewrites itself on a terminal; elsewhere one plain line a stage."""

    def __init__(self) -> None:
        self.tty = sys.stderr.isatty()
        self.said = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.tty:
            end = "\n" if done >= total else ""
            print(f"\r{stage} {done}/{total}\033[K", end=end, file=sys.stderr, flush=True)
        elif stage != self.said:
            print(f"{stage} ...", file=sys.stderr, flush=True)
        self.said = stage


def _announce(run: object) -> None:
    print(f"measuring {getattr(run, 'path', run)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
