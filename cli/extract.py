"""omni-extract: speech to shards of frozen Whisper features."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import _types
from cli._common import make_parser, run
from cli._places import require_file, require_folder
from omni.encoder import DEFAULT_ENCODER
from omni.errors import OmniError

if TYPE_CHECKING:  # importing them takes seconds, which --help should not
    from extract.engines import Rank
    from extract.placement import Placement
    from extract.run import Settings
    from omni.formats.manifest import Manifest
    from omni.whisper.encoder import WhisperEncoder

SMALL_SHARD_SIZE = 32  # the embedded corpora: several shards, though they are small
BATCH_SIZE = {"cpu": 2, "cuda": 64}  # windows; more gains nothing on a CPU
EXIT_FAILURES = 3  # finished, but some utterances could not be extracted

EXAMPLES = """\
Turn speech into shards of frozen Whisper features, ready for omni-train-projector.

  omni-extract --split demo                                 the embedded corpus: three splits
  omni-extract --split train-clean-100                      downloaded if it is not in data/
  omni-extract --root /data/LibriSpeech --split dev-clean   an unpacked LibriSpeech tree
  omni-extract --audio-dir talks --split talks              any folder of audio, texts beside it
  omni-extract --verify shards                              look at every byte, name each fault
  torchrun --nproc-per-node 8 -m cli.extract --root …       a process a GPU, no coordinator

Kill it when you like: the same command goes on where it was and ends with the same bytes.
Exit status: 0 all done, 3 done but some utterances failed (failures.jsonl says why), 1 stopped.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, extract, argv)


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-extract", EXAMPLES)
    _add_input(parser.add_argument_group("input"))
    model = parser.add_argument_group("model")
    model.add_argument(
        "--encoder", type=_types.some, default=DEFAULT_ENCODER, help="folder or hub id"
    )
    model.add_argument(
        "--layers", type=_types.layers, default="last", help="last, all, or indices like 0,3,6"
    )
    model.add_argument("--dtype", choices=("float16", "int8"), default="float16", help="on disk")
    model.add_argument(
        "--window",
        choices=("30", "fit"),
        default="30",
        help="30: exact; fit: speech and a margin of silence, faster, other features",
    )
    model.add_argument(
        "--margin",
        type=_types.number(0, 30),
        metavar="SECONDS",
        help="of --window fit (default: 2)",
    )
    _add_output(parser.add_argument_group("output"))
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--device", type=_types.device, default="auto", help="auto, cpu, cuda, cuda:1, …"
    )
    cpu, gpu = BATCH_SIZE["cpu"], BATCH_SIZE["cuda"]
    speed.add_argument(
        "--batch-size",
        type=_types.whole(1),
        help=f"windows a batch (default: {cpu} on a CPU, 1 if they fit, {gpu} on a GPU)",
    )
    speed.add_argument(
        "--workers",
        type=_types.whole(1, 1024),
        help="decoding threads (default: 2; up to 16 for a GPU)",
    )
    speed.add_argument(
        "--threads",
        type=_types.whole(1, 1024),
        help="threads of the encoder on a CPU (default: all)",
    )
    speed.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: actors of a cluster that shares the output folder (extra ray)",
    )
    speed.add_argument(
        "--ray-workers",
        type=_types.whole(1),
        help="actors (default: one for each GPU of the cluster; without GPUs one for each --threads "
        "of its CPUs, or for each node)",
    )
    speed.add_argument(
        "--rank", type=_types.whole(), help="of this process (default: torchrun's or SLURM's, or 0)"
    )
    speed.add_argument("--world-size", type=_types.whole(1), help="processes that share the shards")
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--split",
        type=_types.some,
        default="demo",
        help="demo, noise, smoke, audiobench-mini, or a split of the corpus (any spelling)",
    )
    group.add_argument(
        "--root",
        type=_types.path,
        help="folder that holds the split or its tar.gz (unpacked there), or the one above it",
    )
    group.add_argument(
        "--audio-dir", type=_types.path, help="any folder of audio instead of LibriSpeech"
    )
    group.add_argument(
        "--transcripts",
        type=_types.some,
        default="auto",
        metavar="TABLE|auto|none",
        help="with --audio-dir: a tsv, csv, jsonl or parquet, lhotse's cuts or a Kaldi folder; "
        "auto: .txt or .trans.txt beside the audio",
    )
    group.add_argument(
        "--role",
        choices=("train", "eval"),
        help="what the split is for (default: by the words of its name; not guessed where they don't tell)",
    )
    group.add_argument(
        "--manifest", type=_types.path, help="a manifest parquet instead of a corpus"
    )
    group.add_argument(
        "--source",
        choices=("auto", "disk", "hf", "openslr"),
        default="auto",
        help="of a LibriSpeech split without --root; auto: the first that has it",
    )
    group.add_argument(
        "--downloads",
        type=_types.path,
        default=Path("data"),
        help="folder that downloads are kept in",
    )
    group.add_argument(
        "--limit", type=_types.whole(1), help="only that many utterances, the plan's first"
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    from extract.plan import SHARD_SIZE

    group.add_argument(
        "--out", type=_types.path, default=Path("shards"), help="folder of the split folders"
    )
    group.add_argument(
        "--manifests", type=_types.path, default=Path("manifests"), help="folder of the manifests"
    )
    group.add_argument("--manifest-only", action="store_true", help="write the manifest and stop")
    group.add_argument(
        "--shard-size",
        type=_types.whole(1),
        help=f"utterances a shard (default: {SHARD_SIZE}; {SMALL_SHARD_SIZE} for those in the repository)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace shards made otherwise")
    group.add_argument(
        "--repair", action="store_true", help="look at every byte, remake faulty shards"
    )
    group.add_argument(
        "--verify", type=_types.path, metavar="SHARDS", help="only look at every byte there"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="say what would be done, how large, how long"
    )
    group.add_argument(
        "--json", type=_types.path, metavar="FILE", help="write the summary there too"
    )
    group.add_argument(
        "--max-failures", type=_types.whole(), default=100, help="stop when more utterances fail"
    )
    group.add_argument(
        "--allow-mixed",
        action="store_true",
        help="go on with a split that was begun on another kind of device or in another precision",
    )


def extract(args: argparse.Namespace) -> int:
    """Do what the arguments ask; returns the exit status."""
    from extract.corpora.choose import Source, find_manifests
    from extract.corpora.librispeech import compare_with_published
    from omni.formats.manifest import write_manifest

    if args.verify:
        return verify(args.verify)
    require_places(args)
    manifests = find_manifests(
        Source(
            split=args.split,
            root=args.root,
            audio_dir=args.audio_dir,
            transcripts=args.transcripts,
            role=args.role,
            manifest=args.manifest,
            source=args.source,
            downloads=args.downloads,
        )
    )
    for manifest in manifests:
        path = args.manifests / f"{manifest.split}.parquet"
        if args.manifest is None:
            write_manifest(manifest, path)
        seconds = sum(u.seconds for u in manifest.utterances)
        print(f"{path}: {len(manifest.utterances)} utterances, {seconds / 3600:.2f} h")
        note = compare_with_published(manifest.split, len(manifest.utterances), seconds)
        if note:
            print(note, file=sys.stderr if note.startswith("warning") else sys.stdout)
    return 0 if args.manifest_only else extract_manifests(args, manifests)


def require_places(args: argparse.Namespace) -> None:
    """Refuse at once what could not be written in the end.

    Raises:
        OmniError: the option, the place, and what is wrong with it.
    """
    if args.manifest is None:
        require_folder(args.manifests, "--manifests")
    if not args.manifest_only:
        require_folder(args.out, "--out")
    if args.json:
        require_file(args.json, "--json")


def verify(root: Path) -> int:
    """Name each fault of the shards below `root`; 1 if there is one."""
    from omni.formats.shard_verify import split_folders, verify_split

    n_faults = 0
    for folder in split_folders(root):
        faults = verify_split(folder)
        n_faults += len(faults)
        for fault in faults:
            print(fault)
        print(f"{folder}: {f'{len(faults)} faults' if faults else 'every byte as it was written'}")
    return 1 if n_faults else 0


def extract_manifests(args: argparse.Namespace, manifests: "Sequence[Manifest]") -> int:
    """Load the encoder once, extract each split, print the summary."""
    from extract.estimate import estimate
    from extract.run import extract_split, summary, summary_json
    from omni.device import pick_device
    from omni.errors import enough_memory
    from omni.formats.shard_writer import write_json
    from omni.whisper.encoder import load_encoder

    rank = find_rank(args)
    placement = find_placement(args)
    # Actors compute elsewhere: here the weights are but hashed.
    device = "cpu" if placement else pick_device(args.device, rank.local_rank)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    with enough_memory("the encoder", "give a smaller --encoder, or --device cpu"):
        encoder = load_encoder(args.encoder, device)
    settings = make_settings(args, encoder, placement)
    if args.dry_run:
        print("\n".join(estimate(manifest, encoder, settings, rank) for manifest in manifests))
        return 0
    outcomes = [extract_split(manifest, encoder, settings, rank) for manifest in manifests]
    print(summary(outcomes))
    if args.json:
        write_json(args.json, summary_json(outcomes))
    return EXIT_FAILURES if any(outcome.failures for outcome in outcomes) else 0


def make_settings(
    args: argparse.Namespace, encoder: "WhisperEncoder", placement: "Placement | None" = None
) -> "Settings":
    """Options and their defaults, which depend on the device that computes and the corpus."""
    from extract.plan import SHARD_SIZE
    from extract.run import Settings
    from omni.whisper.encoder import parse_layers
    from omni.whisper.window import EXACT, make_window

    window = make_window(args.window, args.margin)
    on_gpu = (placement.device if placement else encoder.device.type) == "cuda"
    decoders = min(16, os.cpu_count() or 1) if on_gpu else 2
    # Fitted windows differ in length, so a CPU gains nothing by waiting for a second one.
    default_batch = 1 if window != EXACT and not on_gpu else BATCH_SIZE["cuda" if on_gpu else "cpu"]
    embedded = args.split.startswith(("demo", "noise", "smoke", "audiobench")) and args.root is None
    return Settings(
        out=args.out,
        layers=parse_layers(args.layers, encoder.n_layers),
        shard_size=args.shard_size or (SMALL_SHARD_SIZE if embedded else SHARD_SIZE),
        limit=args.limit,
        batch_size=args.batch_size or default_batch,
        decode_workers=args.workers or (placement.decoders if placement else decoders),
        max_failures=args.max_failures,
        overwrite=args.overwrite,
        repair=args.repair,
        dtype=args.dtype,
        placement=placement,
        window=window,
        allow_mixed=args.allow_mixed,
    )


def find_placement(args: argparse.Namespace) -> "Placement | None":
    """None for the local engine; else where the cluster's actors compute, and how many."""
    if args.engine == "local":
        return None
    from extract.placement import place
    from extract.ray_engine import cluster_nodes

    return place(cluster_nodes(), args.device, args.ray_workers, args.threads)


def find_rank(args: argparse.Namespace) -> "Rank":
    """From the options, else from torchrun or SLURM."""
    from extract.engines import Rank, rank_from_environment

    if args.rank is None and args.world_size is None:
        return rank_from_environment()
    if args.rank is None or args.world_size is None:
        raise OmniError("--rank and --world-size go together")
    if args.rank >= args.world_size:
        raise OmniError(
            f"there is no rank {args.rank} of {args.world_size}", "--rank", "count ranks from 0"
        )
    return Rank(args.rank, args.world_size, args.rank)  # spread over the devices of one machine


if __name__ == "__main__":
    sys.exit(main())
