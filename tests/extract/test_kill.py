"""Killed at twenty random moments, the run ends with the bytes of one that was never killed.

.venv/bin/python -m pytest -m slow tests/extract/test_kill.py
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from extract_kit import command, deterministic_bytes
from kill_kit import command_that_dies, died
from places import ROOT
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main

KILLS = 20

# Importing torch takes longer than the extraction itself: the parent imports once, every run is a
# fork of it, so the kill falls into the work and not into the imports.
RUNNER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch, transformers, webdataset, soundfile, pyarrow.parquet
import transformers.models.whisper.modeling_whisper
from cli.extract import main

folder, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
whole, args = json.loads(sys.argv[4])

def start(args):
    child = os.fork()
    if child == 0:
        os._exit(main(args))
    return child

begin = time.monotonic()
assert os.waitpid(start(whole), 0)[1] == 0
most = (time.monotonic() - begin) / 4  # a slow machine gets as far between the kills as a fast one
moments = random.Random(seed)
killed = 0
while killed < kills:
    child = start(args)
    time.sleep(moments.uniform(0.0, most))
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
    uninterrupted = command(corpus, encoder, whole, "--shard-size", "8")
    args = command(corpus, encoder, killed, "--shard-size", "8")
    script = [sys.executable, "-c", RUNNER, str(killed / "dev-clean"), "7", str(KILLS)]
    both = json.dumps([uninterrupted, args])
    subprocess.run([*script, both], cwd=ROOT, capture_output=True, timeout=700, check=True)
    assert main(args) == 0
    assert deterministic_bytes(killed / "dev-clean") == deterministic_bytes(whole / "dev-clean")


@pytest.mark.slow
def test_a_rank_killed_in_the_middle_is_made_up_for(tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 60, seconds=2.0)
    encoder = tiny_encoder(tmp_path / "tiny")
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert main(command(corpus, encoder, whole)) == 0
    args = command(corpus, encoder, shared)
    victim, marker = 1, tmp_path / "marker"
    ranks = []
    for r in range(3):
        share = [*args, "--rank", str(r), "--world-size", "3"]
        whoever = [sys.executable, "-m", "cli.extract", *share]
        ranks.append(
            subprocess.Popen(
                command_that_dies(marker, *share) if r == victim else whoever,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    codes = [process.wait() for process in ranks]
    assert codes == [0, -signal.SIGKILL, 0]
    assert (shared / "dev-clean" / died(marker)).exists()
    assert not (shared / "dev-clean" / "index.json").exists()
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
