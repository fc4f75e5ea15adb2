"""Peak host memory of an extraction, by the number of utterances: it must not grow with the corpus.

    .venv/bin/python -m bench.extract_memory 500 2000 5000

Noise of 1 to 34 s, 512 utterances a shard, a tiny random encoder: what is left is everything but the
encoder's arithmetic. Each count runs in a process of its own, whose VmHWM (Linux) is read before
anything looks at the shards again.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from extract.corpora.folder import folder_manifest
from extract.run import Settings, extract_split
from omni.whisper.encoder import WhisperEncoder

SHORTEST, LONGEST = 16_000, 544_000  # samples: the longest takes two windows


def main() -> int:
    """One corpus, as large as the largest count; each count in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("counts", type=int, nargs="*", default=[500, 2000, 5000])
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)  # in the process measured
    args = parser.parse_args()
    if args.of:
        print(peak(args.of))
        return 0
    with tempfile.TemporaryDirectory() as name:
        write_noise(Path(name), args.counts)
        first = 0.0
        for count in args.counts:
            measured = [sys.executable, "-m", "bench.extract_memory", "--of", f"{name}/{count}"]
            run = subprocess.run(measured, stdout=subprocess.PIPE, text=True, check=True)
            mib = float(run.stdout.split()[-1])
            first = first or mib
            print(f"{count:>6} utterances  {mib:7.0f} MiB at most  {mib / first:.3f}", flush=True)
    return 0


def peak(folder: Path) -> float:
    """Extract a folder; the most memory that was ever resident, in MiB."""
    torch.set_num_threads(1)
    encoder = tiny_encoder()
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        settings = Settings(Path(out), "last", 512, None, 2, 2, 0, False)
        extract_split(folder_manifest(folder, "memory", "none"), encoder, settings)
        lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def write_noise(root: Path, counts: Sequence[int]) -> None:
    """A folder for each count, with links to the same files of noise, quiet so that FLAC packs it."""
    rng = np.random.default_rng(0)
    for count in counts:
        (root / str(count)).mkdir()
    for i in range(max(counts)):
        file = root / f"{i:06d}.flac"
        samples = 0.0002 * rng.standard_normal(int(rng.integers(SHORTEST, LONGEST)))
        soundfile.write(file, samples, 16_000)
        for count in counts:
            if i < count:
                (root / str(count) / file.name).hardlink_to(file)


def tiny_encoder() -> WhisperEncoder:
    """Two random layers of 16 channels."""
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    )
    state = WhisperModel(config).encoder.state_dict()
    return WhisperEncoder(config.to_dict(), state, "tiny", "random")


if __name__ == "__main__":
    raise SystemExit(main())
