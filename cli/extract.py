"""omni-extract: speech to shards of frozen Whisper features."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cli._common import make_parser, run
from extract.corpora.demo import DEMO_SPLITS, demo_manifest
from extract.corpora.librispeech import compare_with_published, librispeech_manifest
from extract.corpora.smoke import smoke_manifest
from extract.plan import SHARD_SIZE
from omni.errors import OmniError
from omni.manifest import Manifest, write_manifest

SMALL_SHARD_SIZE = 32  # the embedded corpora: several shards, though they are small
BATCH_SIZE = {"cpu": 2, "cuda": 64}  # windows; more gains nothing, see docs/log.md
EXIT_FAILURES = 3  # finished, but some utterances could not be extracted

EXAMPLES = """\
Turn speech into shards of frozen Whisper features, ready for omni-train-projector.

  omni-extract --split demo                                 the embedded corpus: three splits
  omni-extract --root /data/LibriSpeech --split dev-clean   an unpacked LibriSpeech tree

Kill it when you like: the same command goes on where it was and ends with the same bytes.
Exit status: 0 all done, 3 done but some utterances failed (failures.jsonl says why), 1 stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser(), extract, argv)


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-extract", EXAMPLES)
    source = parser.add_argument_group("input")
    source.add_argument(
        "--split", default="demo", help="demo, smoke, or a split of the corpus (any spelling)"
    )
    source.add_argument(
        "--root", type=Path, help="folder that holds the split, or the one above it"
    )
    source.add_argument(
        "--limit", type=int, help="only that many utterances, drawn by the plan's order"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--encoder", default="openai/whisper-base", help="folder or hub id")
    model.add_argument("--layers", default="last", help="last, all, or indices like 0,3,6")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, default=Path("shards"), help="folder of the split folders")
    out.add_argument(
        "--manifests", type=Path, default=Path("manifests"), help="folder of the manifests"
    )
    out.add_argument("--manifest-only", action="store_true", help="write the manifest and stop")
    out.add_argument(
        "--shard-size",
        type=int,
        help=f"utterances a shard (default: {SHARD_SIZE}; {SMALL_SHARD_SIZE} for demo and smoke)",
    )
    out.add_argument("--overwrite", action="store_true", help="replace shards made otherwise")
    out.add_argument("--max-failures", type=int, default=100, help="stop when more utterances fail")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    speed.add_argument(
        "--batch-size",
        type=int,
        help=f"30 s windows a batch (default: {BATCH_SIZE['cpu']} on a CPU, {BATCH_SIZE['cuda']} on a GPU)",
    )
    speed.add_argument(
        "--workers", type=int, help="decoding threads (default: 2 on a CPU, up to 16)"
    )
    speed.add_argument("--threads", type=int, help="threads of the encoder on a CPU (default: all)")
    return parser


def extract(args: argparse.Namespace) -> int:
    """Extract what the arguments name; returns the exit status."""
    manifests = find_manifests(args)
    for manifest in manifests:
        path = args.manifests / f"{manifest.split}.parquet"
        write_manifest(manifest, path)
        seconds = sum(u.seconds for u in manifest.utterances)
        print(f"{path}: {len(manifest.utterances)} utterances, {seconds / 3600:.2f} h")
        note = compare_with_published(manifest.split, len(manifest.utterances), seconds)
        if note:
            print(note, file=sys.stderr if note.startswith("warning") else sys.stdout)
    if args.manifest_only:
        return 0
    return extract_manifests(args, manifests)


def find_manifests(args: argparse.Namespace) -> list[Manifest]:
    """The manifests of `--split`: three for demo, else one."""
    if args.root is None and args.split == "demo":
        return [demo_manifest(split) for split in DEMO_SPLITS]
    if args.root is None and args.split in DEMO_SPLITS:
        return [demo_manifest(args.split)]
    if args.root is None and args.split == "smoke":
        return [smoke_manifest()]
    if args.root is None:
        raise OmniError(
            "where is the corpus?",
            f"--split {args.split}",
            "give --root, the folder of the unpacked LibriSpeech tree",
        )
    return [librispeech_manifest(args.root, args.split)]


def extract_manifests(args: argparse.Namespace, manifests: Sequence[Manifest]) -> int:
    """Load the encoder once, extract each split, print the summary."""
    import torch

    from extract.run import Settings, extract_split, summary
    from omni.whisper import load_encoder, parse_layers

    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.threads:
        torch.set_num_threads(args.threads)
    encoder = load_encoder(args.encoder, device)
    on_gpu = encoder.device.type == "cuda"
    small = args.root is None
    settings = Settings(
        out=args.out,
        layers=parse_layers(args.layers, encoder.n_layers),
        shard_size=args.shard_size or (SMALL_SHARD_SIZE if small else SHARD_SIZE),
        limit=args.limit,
        batch_size=args.batch_size or BATCH_SIZE["cuda" if on_gpu else "cpu"],
        decode_workers=args.workers or (min(16, os.cpu_count() or 1) if on_gpu else 2),
        max_failures=args.max_failures,
        overwrite=args.overwrite,
    )
    outcomes = [extract_split(manifest, encoder, settings) for manifest in manifests]
    print(summary(outcomes))
    return EXIT_FAILURES if any(outcome.failures for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
