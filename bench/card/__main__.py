"""One command that measures a card: how fast it encodes, trains and decodes, and what binds.

    python -m bench.card --out card/ --minutes 9       on a machine with a card
    python -m bench.card --device cpu --small --minutes 1 --out card/     does it run?

Writes card.json and card.md. Weights are random, for sizes are all that counts: nothing is
downloaded. Each part has its share of the time; what fails or runs out of it is a row that says so.

Needs torch, torchaudio, transformers, numpy and tiktoken, and of this project's other packages
pydantic, universal-pathlib and typing-extensions: wheels of 3 MB in all, of which pydantic-core is
bound to a Python and a platform. The two whole commands need webdataset (small and pure), jiwer and soundfile
(wheels of some MB) too: without them, their rows say so.
"""

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench.card import decoding, encoding, training, whole
from bench.card.rows import Budget, Row, as_markdown, bounded, write_tables
from omni.device import pick_device
from omni.errors import OmniError, brief
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.memory import depth_config


def main() -> int:
    """Measure part by part; after each one the files hold what is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("card"), help="folder for the two files")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--small", action="store_true", help="tiny sizes: a trial of the command")
    args = parser.parse_args()
    try:
        device = torch.device(pick_device(args.device))
    except OmniError as error:
        parser.exit(1, f"error: {error}\n")
    rows: list[Row] = []
    about = describe(device)
    for name, part, share in parts(device, args.small, rows):
        limit = 60 * args.minutes * share
        try:
            with bounded(limit):
                for row in part(Budget.of(0.8 * limit)):
                    rows.append(row)
                    print(f"{row.part}: {row.what}: {row.value} {row.unit} {row.note}", flush=True)
        except Exception as error:  # the other parts still count
            rows.append(Row(name, "failed", None, "", brief(error)))
        write_tables(args.out, about, rows)
    print(as_markdown(about, rows))
    return 0


Part = Callable[[Budget], Iterator[Row]]


def parts(device: torch.device, small: bool, rows: list[Row]) -> Iterator[tuple[str, Part, float]]:
    """Name, measurement and share of the time of each part; `rows` holds those already measured."""
    depths = {"d2": _tiny()} if small else {f"d{d}": depth_config(d) for d in (12, 20, 26)}
    batches, layers = ((2,), 1) if small else (encoding.BATCHES, 6)
    clips, batch, steps = (6, 2, 4) if small else (1024, training.TrainOptions.batch_size, 60)
    if device.type != "cuda" and not small:
        clips, steps = 16, 4
    yield encoding.PART, lambda b: encoding.measure(device, b, batches, layers), 0.3

    def train(budget: Budget) -> Iterator[Row]:
        peak = next((r.value for r in rows if r.unit == "TFLOP/s" and r.value), float("nan"))
        return training.measure(device, budget, depths, peak * 1e12, batch)

    yield training.PART, train, 0.3
    yield decoding.PART, lambda b: decoding.measure(device, b, depths), 0.15
    yield whole.EXTRACTION, lambda b: whole.extraction(device, b, clips, layers), 0.15
    yield whole.WAITING, lambda _: whole.waiting(device, depths, batch, steps), 0.1


def describe(device: torch.device) -> dict[str, str]:
    """What the figures belong to."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "device": card or "CPU",
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
    }


def _tiny() -> NanoChatConfig:
    return NanoChatConfig(512, 1024, 2, 2, 2, 128, "SL")


if __name__ == "__main__":
    raise SystemExit(main())
