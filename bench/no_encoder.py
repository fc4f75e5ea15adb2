"""The pipeline of extraction with the encoder replaced by a copy: what the host carries, stage by stage.

    .venv/bin/python -m bench.extract --no-encoder                       512 clips, 1 and 2 workers
    .venv/bin/python -m bench.extract --no-encoder --against ../before   another checkout beside it, interleaved

On a CPU log-mel and the encoder are left out and features of the right shape copied from a constant in
float16, as a card would hand them over; with `--device cuda` the encoder alone is left out. Each run is
a process of its own, so that a checkout is measured whole; rounds interleave and the best of each
counts. CPU seconds are those of the thread in the stage, without those of a stage inside it; a stage's
wall seconds are summed over threads.
"""

import argparse
import contextlib
import functools
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STAGES = {
    "decode": ("extract.ahead:decode",),
    "assemble": ("omni.whisper.encoder:WhisperEncoder.mel", "omni.whisper.samples:fill_row"),
    "convert": (
        "omni.formats.shard_writer:encode_features",
        "extract.pipeline:_Shard._as_stored",
    ),
    "tar": (
        "omni.formats.shard_writer:ShardWriter.add",
        "omni.formats.shard_writer:ShardWriter.append",
    ),
    "commit": ("omni.formats.shard_writer:ShardWriter.commit",),
}
CORES, BAR_SECONDS = 16, 60
HOURS_WINDOWS = 28_500  # of train-clean-100, 12.7 s each
FRAME_BYTES, FRAMES = 1024, 635  # whisper-base in float16, an utterance of 12.7 s


@dataclass(frozen=True)
class Run:
    """One extraction: seconds, of which CPU, and those of each stage (summed over threads)."""

    windows: int
    seconds: float
    cpu: float  # of the whole process
    main_cpu: float  # of the thread that launches batches
    write_cpu: float  # of the threads that write, one a shard
    stage_seconds: dict[str, float]
    stage_cpu: dict[str, float]


class Clock:
    """Wall and CPU seconds by stage; a stage inside another takes its share away from it."""

    def __init__(self) -> None:
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.writing = 0.0  # CPU seconds of the stages in threads that write
        self._lock, self._inside = threading.Lock(), threading.local()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time counts as the stage's."""

        @functools.wraps(function)
        def run(*args: Any, **named: Any) -> Any:
            outer: list[list[float]] = self._inside.__dict__.setdefault("stack", [])
            outer.append([0.0, 0.0])
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **named)
            finally:
                wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
                inner = outer.pop()
                if outer:
                    outer[-1][0] += wall
                    outer[-1][1] += cpu
                with self._lock:
                    self.wall[stage] += wall - inner[0]
                    self.cpu[stage] += cpu - inner[1]
                    if threading.current_thread().name.startswith("write"):
                        self.writing += cpu - inner[1]

        return run

    def hook(self) -> None:
        """Put the clock into what this checkout has of the stages' functions."""
        for stage, names in STAGES.items():
            found = [name for name in names if self._hook_one(stage, name)]
            assert found, f"nothing of stage {stage} is in this checkout"

    def _hook_one(self, stage: str, name: str) -> bool:
        owner, last = find(name)
        if owner is not None:
            setattr(owner, last, self.timed(stage, getattr(owner, last)))
        return owner is not None


def find(name: str) -> tuple[Any, str]:
    """Whose attribute `module:Class.function` is, and its last name; None where it is not there."""
    module, _, path = name.partition(":")
    *parents, last = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
    except (ImportError, AttributeError):
        return None, last
    return (owner if hasattr(owner, last) else None), last


def compare(
    clips: int, rounds: int, workers: Sequence[int], device: str, against: Path | None
) -> None:
    """Run this checkout, and the other where there is one, in turn; print what each carries."""
    here = Path(__file__).resolve().parents[1]
    trees = {"here": here} | ({"before": against.resolve()} if against else {})
    best: dict[tuple[str, int], Run] = {}
    with tempfile.TemporaryDirectory() as name:
        write_clips(Path(name), clips)
        for _ in range(rounds):
            for n in workers:
                for tree, folder in trees.items():
                    run = _in_process(folder, Path(name), n, device)
                    old = best.get((tree, n))
                    best[tree, n] = run if old is None or run.seconds < old.seconds else old
    for n in workers:
        for tree in trees:
            print("\n".join(told(f"{tree}, {n} decode workers", best[tree, n])))
        if against:
            now, then = best["here", n], best["before", n]
            print(
                f"  here against before: {then.seconds / now.seconds:.2f} x the windows a second, "
                f"{now.cpu / then.cpu:.2f} of the CPU seconds"
            )


def told(title: str, run: Run) -> Iterator[str]:
    """What a run says about this machine, and by arithmetic about a larger one."""
    ms = 1000 / run.windows
    yield (
        f"{title}: {run.windows / run.seconds:.1f} windows/s, {run.cpu * ms:.2f} CPU ms a window, "
        f"{run.main_cpu * ms:.2f} of them in the thread that launches"
    )
    for stage in STAGES:
        wall, cpu = run.stage_seconds[stage] * ms, run.stage_cpu[stage] * ms
        yield f"  {stage:<9} {wall:7.2f} ms wall  {cpu:7.2f} ms CPU a window"
    by_cores = HOURS_WINDOWS * run.cpu / run.windows / CORES
    launch = HOURS_WINDOWS * run.main_cpu / run.windows
    write = HOURS_WINDOWS * run.write_cpu / run.windows
    megabytes = HOURS_WINDOWS * FRAMES * FRAME_BYTES / 1e6
    slowest = max(by_cores, launch, write)
    yield (
        f"  100 h are {HOURS_WINDOWS} windows; {CORES} cores carry {CORES * run.windows / run.cpu:.0f} "
        f"windows/s: {by_cores:.1f} s; the launching thread {launch:.1f} s, one writing thread {write:.1f} s: "
        f"{slowest:.1f} s ({'under' if slowest < BAR_SECONDS else 'NOT under'} {BAR_SECONDS}), "
        f"if the disk takes {megabytes / slowest:.0f} MB/s"
    )


def write_clips(folder: Path, n: int) -> None:
    """FLACs of LibriSpeech's lengths and size on disk: noise of eight bits a sample, each a file."""
    import numpy as np
    import soundfile

    from bench.extract import LENGTHS

    rng = np.random.default_rng(0)
    for i in range(n):
        file = folder / f"{i:06d}.flac"
        if i < len(LENGTHS):
            samples = 0.002 * rng.standard_normal(round(LENGTHS[i] * 16_000))
            soundfile.write(file, samples, 16_000)
        else:
            file.hardlink_to(folder / f"{i % len(LENGTHS):06d}.flac")


def measure(folder: Path, workers: int, device: str) -> Run:
    """Extract a folder in this process."""
    import torch

    from extract.corpora.folder import folder_manifest
    from extract.run import Settings, extract_split

    torch.set_num_threads(1)
    encoder = without_encoder(device)
    clock = Clock()
    clock.hook()
    manifest = folder_manifest(folder, "bench", "none")
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        settings = Settings(Path(out), "last", 128, None, 64, workers, 0, False)
        wall, cpu, main = time.perf_counter(), time.process_time(), time.thread_time()
        with contextlib.redirect_stdout(io.StringIO()):
            extract_split(manifest, encoder, settings)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        main = time.thread_time() - main
    n = len(manifest.utterances)
    return Run(n, wall, cpu, main, clock.writing, dict(clock.wall), dict(clock.cpu))


def without_encoder(device: str) -> Any:
    """An encoder as wide as whisper-base whose forward pass copies a constant."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    import omni.whisper.encoder as module

    config = WhisperConfig(encoder_layers=1, d_model=512, encoder_attention_heads=8)
    state = WhisperEncoder(config).state_dict()
    encoder: Any = module.WhisperEncoder(config.to_dict(), state, "none", "constant", device)
    constant = torch.randn(64 * 1500, 512, generator=torch.Generator().manual_seed(0))
    constant = constant.to(device, torch.float16)

    def copy(mel: Any, counts: list[int], *_: Any) -> Any:
        return constant[: sum(counts)].clone()

    encoder.encode_mel = copy
    if encoder.device.type == "cpu":

        def none(waves: Any, n_mels: int, frames: int) -> Any:
            return torch.zeros(len(waves), 1, frames)

        module.log_mel = none
    return encoder


def _in_process(tree: Path, clips: Path, workers: int, device: str) -> Run:
    # -P: beside this file lies bench/extract.py, which would hide the package of that name.
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).resolve()),
        str(clips),
        str(workers),
        device,
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    return Run(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("workers", type=int)
    parser.add_argument("device")
    asked = parser.parse_args()
    print(json.dumps(asdict(measure(asked.clips, asked.workers, asked.device))))
