"""Worker processes end with the trainer, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_kit import environment, heed_signals
from places import KITS, ROOT
from training_kit import speech, write_split

from train.passes import BatchRule, Shard
from train.stream import StreamSpec, batches

GENTLER = (signal.SIGTERM, signal.SIGHUP)
READS = """
import itertools, multiprocessing, sys, time
sys.path.insert(0, sys.argv[1])
from omni.formats.splits import open_split
from train.passes import BatchRule, Shard
from train.stream import StreamSpec, batches
split = open_split(sys.argv[2])
shards = [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n))) for e in split.shards]
calls = itertools.count()

def hang(x, rng):  # as a store that does not answer, after the first batch
    if next(calls) >= 4:
        time.sleep(600)
    return x

stream = batches(StreamSpec(shards, 0, BatchRule(4), augment=hang), workers=2, depth=1)
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pids: list[int], patience: float = 60.0) -> bool:
    end = time.monotonic() + patience
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(alive(pid) for pid in pids)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "how", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.slow) for n in GENTLER)]
)
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path, how: signal.Signals) -> None:
    split = write_split(tmp_path, "train-x", speech(16))
    command = [sys.executable, "-c", READS, str(KITS), str(split.folder)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        parent.send_signal(how)
        assert parent.wait(60) == -how
    try:
        assert gone(pids)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


def test_workers_end_with_the_stream_while_its_traceback_lives(tmp_path: Path) -> None:
    import multiprocessing

    split = write_split(tmp_path, "train-x", speech(16))
    shards = [Shard(str(e.path), tuple(e.n_frames), tuple(range(e.n))) for e in split.shards]
    bad = [Shard(s.path, (99, *s.n_frames[1:]), s.places) for s in shards]
    before = {child.pid for child in multiprocessing.active_children()}
    stream = batches(StreamSpec(bad, 0, BatchRule(4)), workers=2)
    with pytest.raises(Exception, match="the index says 99") as caught:
        next(stream)
    assert caught.traceback
    assert {child.pid for child in multiprocessing.active_children()} <= before
