"""Decoding in threads against processes: seconds until every recording is in this process.

    .venv/bin/python -m bench.decode                    256 clips of LibriSpeech's lengths, 5 rounds
    .venv/bin/python -m bench.decode --audio-dir DIR    the FLACs there

The work is the pipeline's: decode, sha256. Processes are spawned and warm before the clock starts;
their samples come back pickled, or through shared memory. Rounds interleave and the best counts.
"""

import argparse
import hashlib
import multiprocessing
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import numpy as np

from omni.audio import SAMPLE_RATE, load_audio

AHEAD = 10  # recordings on their way, as in extract.pipeline with two workers

Arrived = tuple[np.ndarray, str]  # samples, sha256
Shared = tuple[str, int, str]  # name of a block, samples in it, sha256


def main() -> int:
    """Print a line for each way and number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--audio-dir", type=Path, help="of FLACs (default: noise, made here)")
    parser.add_argument("--clips", type=int, default=256, help="of noise (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = args.audio_dir
        if folder is None:
            from bench.extract import write_clips

            folder = Path(name) / "clips"
            write_clips(folder, args.clips)
        clips = sorted(folder.rglob("*.flac"))
        audio = sum(len(load_audio(clip)) for clip in clips) / SAMPLE_RATE
        seconds = race(clips, args.workers, args.rounds)
    print(f"{len(clips)} clips, {audio:.0f} s of audio")
    for way, best in seconds.items():
        print(f"{way:<32} {best:6.2f} s  {audio / best:7.0f} x real time")
    return 0


def race(clips: list[Path], workers: list[int], rounds: int) -> dict[str, float]:
    """Best wall seconds of each way."""
    spawn = multiprocessing.get_context("spawn")
    ways: dict[str, tuple[Executor, Callable[[Path], Arrived | Shared]]] = {}
    for n in workers:
        processes = ProcessPoolExecutor(n, spawn)
        ways[f"{n} threads"] = ThreadPoolExecutor(n), decode
        ways[f"{n} processes"] = processes, decode
        ways[f"{n} processes, shared memory"] = processes, decode_to_shared_memory
    best = dict.fromkeys(ways, float("inf"))
    for r in range(rounds + 1):
        for way, (pool, work) in ways.items():
            start = time.perf_counter()
            gather(pool, work, clips)
            if r:  # the first warms up
                best[way] = min(best[way], time.perf_counter() - start)
    for pool, _ in ways.values():
        pool.shutdown()
    return best


def gather(pool: Executor, work: Callable[[Path], Arrived | Shared], clips: list[Path]) -> None:
    """All clips in order, a bounded number in advance."""
    waiting = deque(pool.submit(work, clip) for clip in clips[:AHEAD])
    for clip in [*clips[AHEAD:], *[None] * min(AHEAD, len(clips))]:
        arrived = waiting.popleft().result()
        if len(arrived) == 3:
            take_from_shared_memory(*arrived)
        if clip is not None:
            waiting.append(pool.submit(work, clip))


def decode(clip: Path) -> Arrived:
    """What the pipeline does of a recording before it is encoded."""
    wave = load_audio(clip)
    return wave, hashlib.sha256(wave.data).hexdigest()


def decode_to_shared_memory(clip: Path) -> Shared:
    """The same, samples left in a block that the receiver removes."""
    wave, digest = decode(clip)
    block = shared_memory.SharedMemory(create=True, size=wave.nbytes)
    np.ndarray(wave.shape, np.float32, block.buf)[:] = wave
    resource_tracker.unregister(block._name, "shared_memory")  # type: ignore[attr-defined]
    block.close()
    return block.name, len(wave), digest


def take_from_shared_memory(name: str, n: int, _digest: str) -> np.ndarray:
    """Copied out, float32 (n,), so that the block can go."""
    block = shared_memory.SharedMemory(name)
    wave = np.ndarray((n,), np.float32, block.buf).copy()
    block.close()
    block.unlink()
    return wave


if __name__ == "__main__":
    raise SystemExit(main())
