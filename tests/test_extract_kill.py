"""Killed at twenty random moments, the run ends with the bytes of one that was never killed.

.venv/bin/python -m pytest -m slow tests/test_extract_kill.py
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from speech_kit import noise_tree, tiny_encoder
from test_extract import command, deterministic_bytes

from cli.extract import main

ROOT = Path(__file__).resolve().parent.parent
KILLS = 20

# Importing torch takes longer than the extraction itself: the parent imports once, every run is a
# fork of it, so the kill falls into the work and not into the imports.
RUNNER = """
import os, random, signal, sys, time
from pathlib import Path
import torch, transformers, webdataset, soundfile, pyarrow.parquet
import transformers.models.whisper.modeling_whisper
from cli.extract import main

folder, seed, kills, args = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
moments = random.Random(seed)
killed = 0
while killed < kills:
    child = os.fork()
    if child == 0:
        os._exit(main(args))
    time.sleep(moments.uniform(0.0, 2.0))
    os.kill(child, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        killed += 1
    else:  # it had finished: take some shards away, so that there is something to kill
        (folder / "index.json").unlink()
        for sidecar in moments.sample(sorted(folder.glob("*-[0-9]*.json")), 10):
            sidecar.unlink()
"""


@pytest.mark.slow
def test_twenty_kills_change_no_byte(tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 120, seconds=2.0)
    encoder = tiny_encoder(tmp_path / "tiny")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(corpus, encoder, whole, "--shard-size", "8")) == 0
    args = command(corpus, encoder, killed, "--shard-size", "8")
    script = [sys.executable, "-c", RUNNER, str(killed / "dev-clean"), "7", str(KILLS), *args]
    subprocess.run(script, cwd=ROOT, capture_output=True, timeout=400, check=True)
    assert main(args) == 0
    assert deterministic_bytes(killed / "dev-clean") == deterministic_bytes(whole / "dev-clean")


@pytest.mark.slow
def test_a_rank_killed_in_the_middle_is_made_up_for(tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 60, seconds=2.0)
    encoder = tiny_encoder(tmp_path / "tiny")
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert main(command(corpus, encoder, whole)) == 0
    args = command(corpus, encoder, shared)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "cli.extract", *args, "--rank", str(r), "--world-size", "3"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for r in range(3)
    ]
    deadline = time.monotonic() + 120
    while not any((shared / "dev-clean").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    victim = random.Random(0).randrange(3)
    ranks[victim].send_signal(signal.SIGKILL)
    codes = [process.wait() for process in ranks]
    assert codes[victim] == -signal.SIGKILL
    assert all(code == 0 for r, code in enumerate(codes) if r != victim)
    assert not (shared / "dev-clean" / "index.json").exists(), "killed too late to prove anything"
    assert main([*args, "--rank", str(victim), "--world-size", "3"]) == 0
    assert deterministic_bytes(shared / "dev-clean") == deterministic_bytes(whole / "dev-clean")


PEAK = """
import resource, sys
from cli.extract import main

code = main(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 1000, seconds=1.0)
    encoder = tiny_encoder(tmp_path / "tiny", layers=1)
    peaks = {}
    for n in (100, 1000):
        args = command(corpus, encoder, tmp_path / str(n), "--limit", str(n), "--shard-size", "50")
        script = [sys.executable, "-c", PEAK, *args]
        run = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[n] = int(run.stdout.rsplit("PEAK", 1)[1])  # KiB
    assert peaks[1000] < 1.1 * peaks[100], peaks
