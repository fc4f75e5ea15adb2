"""A run that is told to end leaves no half-written file, no claim, and whole shards alone.

.venv/bin/python -m pytest tests/extract/test_stop.py
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_kit import environment, heed_signals
from extract_kit import command, deterministic_bytes
from places import ROOT
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main

MORE = (signal.SIGINT, signal.SIGTERM)
# The signal comes from inside, in the middle of the second shard: no watcher has to catch the moment.
RUNNER = """
import os, sys, time
from omni.formats.shard_writer import ShardWriter
from cli.extract import main

append, number = ShardWriter.append, int(sys.argv[1])

def append_and_stop(self, sample):
    append(self, sample)
    if self.name.endswith("1") and len(self._metas) == 2:
        first = self.path.with_name(self.path.name.replace("000001.tar", "000000.json"))
        while not first.exists():  # committed in the background
            time.sleep(0.005)
        os.kill(os.getpid(), number)

ShardWriter.append = append_and_stop
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)]
)
def test_a_signal_in_mid_shard_leaves_whole_shards_and_nothing_else(
    tmp_path: Path, number: signal.Signals
) -> None:
    encoder = tiny_encoder(tmp_path / "tiny")
    args = command(noise_tree(tmp_path, 40, seconds=2.0), encoder, tmp_path / "out")
    script = [sys.executable, "-c", RUNNER, str(int(number)), *args, "--shard-size", "20"]
    run = subprocess.run(
        script, cwd=ROOT, capture_output=True, text=True, env=environment(), preexec_fn=heed_signals
    )
    assert run.returncode == 128 + number, run.stderr
    assert "Traceback" not in run.stderr
    folder = tmp_path / "out" / "dev-clean"
    there = {path.name for path in folder.iterdir()}
    assert there == {"dev-clean-000000.json", "dev-clean-000000.tar"}
    again = [*args, "--shard-size", "20"]
    assert main(again) == 0
    whole = command(tmp_path, encoder, tmp_path / "whole", "--shard-size", "20")
    assert main(whole) == 0
    assert deterministic_bytes(folder) == deterministic_bytes(tmp_path / "whole" / "dev-clean")
