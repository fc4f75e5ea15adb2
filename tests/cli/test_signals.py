"""Ctrl-C, SIGTERM and SIGHUP at each stage: one line, the right status, nothing left running, no
temporary file; the same command then ends the work.

.venv/bin/python -m pytest tests/cli/test_signals.py
"""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from command_kit import commands, environment, files_below, heed_signals, one_line, run_command
from places import ROOT
from speech_kit import noise_tree, tiny_encoder
from stop_kit import MARK, at_call, at_import, left_running
from training_kit import save_lm, speech, tiny_lm, write_split

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
AGAIN = "run the same command again to go on from here"
SAYS = {
    signal.SIGINT: f"interrupted: {AGAIN}",
    signal.SIGTERM: f"stopped by SIGTERM: {AGAIN}",
    signal.SIGHUP: f"stopped by SIGHUP: {AGAIN}",
}
every_signal = pytest.mark.parametrize("number", STATUS)


def signals(fast: signal.Signals) -> pytest.MarkDecorator:
    """All three, one of them among the fast tests: which it is makes no difference to a stage, and
    `test_each_signal_has_its_line_and_its_status` tells the three apart."""
    cases = [n if n == fast else pytest.param(n, marks=pytest.mark.slow) for n in STATUS]
    return pytest.mark.parametrize("number", cases)


@pytest.fixture
def mark() -> str:
    """A word that only this test's processes carry."""
    return uuid.uuid4().hex


def run_script(body: str) -> "subprocess.CompletedProcess[str]":
    """A command that imports nothing heavy and does `body`."""
    script = "import os, signal, sys\nfrom cli._common import make_parser, run\n" + body
    script += '\nsys.exit(run(lambda: make_parser("omni-x", "x"), command, []))'
    return subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True,
        preexec_fn=heed_signals,
    )  # fmt: skip


@every_signal
def test_each_signal_has_its_line_and_its_status(number: int) -> None:
    done = run_script(f"def command(args): os.kill(os.getpid(), {int(number)})")
    assert one_line(done.stderr) == SAYS[signal.Signals(number)]
    assert done.returncode == STATUS[signal.Signals(number)]


@signals(signal.SIGTERM)
def test_while_what_a_command_needs_is_imported(number: int, tmp_path: Path) -> None:
    done = run_command(
        "omni-lm", "inspect", "demo", cwd=tmp_path, before=at_import("torch", number)
    )
    assert one_line(done.stderr) == SAYS[signal.Signals(number)]
    assert done.returncode == STATUS[signal.Signals(number)]


BEFORE_OPTIONS = [("omni-extract", "argparse"), *((name, "cli._common") for name in commands())]


@pytest.mark.parametrize(("command", "module"), BEFORE_OPTIONS)
def test_ctrl_c_before_a_command_has_read_its_options(
    command: str, module: str, tmp_path: Path
) -> None:
    done = run_command(command, "--help", cwd=tmp_path, before=at_import(module, signal.SIGINT))
    assert one_line(done.stderr) == SAYS[signal.SIGINT]
    assert done.returncode == 130


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    done = run_script("""
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
def command(args):
    os.kill(os.getpid(), signal.SIGHUP)
    return 0""")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_sigterm_does_not_break_the_cleaning_up() -> None:
    done = run_script("""
def command(args):
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        print("cleaned up")
    return 0""")
    assert (done.returncode, done.stdout) == (129, "cleaned up\n")
    assert one_line(done.stderr) == SAYS[signal.SIGHUP]


@signals(signal.SIGTERM)
def test_in_the_middle_of_a_shard(number: int, tmp_path: Path, mark: str) -> None:
    noise_tree(tmp_path / "corpus", 6)
    tiny_encoder(tmp_path / "encoder")
    args = ["--root", tmp_path / "corpus", "--split", "dev-clean", "--device", "cpu"]
    args += ["--encoder", tmp_path / "encoder", "--out", tmp_path / "out", "--shard-size", 4]
    args += ["--manifests", tmp_path / "m"]
    env = environment(**{MARK: mark})
    stop = at_call("omni.formats.shard_writer", "ShardWriter.append", 3, number)
    done = run_command("omni-extract", *args, cwd=tmp_path, env=env, before=stop)
    assert done.returncode == STATUS[signal.Signals(number)], done.stderr
    assert done.stderr.splitlines()[-1] == SAYS[signal.Signals(number)]
    assert "Traceback" not in done.stderr
    assert [file for file in files_below(tmp_path) if file.endswith(".tmp")] == []
    assert left_running(mark) == []
    again = run_command("omni-extract", *args, cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "dev-clean" / "index.json").is_file()


@signals(signal.SIGTERM)
def test_training_with_workers(number: int, tmp_path: Path, mark: str) -> None:
    write_split(tmp_path / "shards", "train-x", speech(32))
    write_split(tmp_path / "shards", "dev-x", speech(6, 5, 500, "bob"), role="eval")
    save_lm(tmp_path / "lm", tiny_lm())
    args = ["--shards", tmp_path / "shards", "--lm", tmp_path / "lm", "--steps", 4]
    args += ["--hidden", 16, "--batch-size", 8, "--decode-limit", 1, "--wandb", "disabled"]
    args += ["--warmup", 1, "--workers", 2, "--device", "cpu", "--save-every", 1]
    env = environment(**{MARK: mark})
    stop = at_call("train.loop", "train_step", 3, number)
    done = run_command("omni-train-projector", *args, cwd=tmp_path, env=env, before=stop)
    assert done.returncode == STATUS[signal.Signals(number)], done.stderr
    assert done.stderr.splitlines()[-1] == SAYS[signal.Signals(number)]
    assert "Traceback" not in done.stderr
    assert left_running(mark) == []
    assert [file for file in files_below(tmp_path) if file.endswith(".tmp")] == []
    again = run_command("omni-train-projector", *args, "--resume", cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert "resumed at step 2" in again.stderr


@signals(signal.SIGTERM)
def test_the_demo_ends_its_stage_and_waits_for_it(number: int, tmp_path: Path, mark: str) -> None:
    """The stage sends the signal to the demo alone, and then takes a moment to clean up."""
    stage = tmp_path / "stage.py"
    stage.write_text(f"""
import os, sys, time
from cli._common import make_parser, run
def command(args):
    try:
        os.kill(os.getppid(), {int(number)})
        time.sleep(300)
    finally:
        time.sleep(0.3)
        open("cleaned-up", "w").close()
    return 0
sys.exit(run(lambda: make_parser("omni-extract", "x"), command, []))
""")
    before = f"""
import sys
import cli.demo
popen = cli.demo.subprocess.Popen
cli.demo.subprocess.Popen = lambda line: popen([sys.executable, {str(stage)!r}])
"""
    env = environment(**{MARK: mark})
    done = run_command("omni-demo", cwd=tmp_path, env=env, before=before)
    assert done.returncode == STATUS[signal.Signals(number)], done.stderr
    assert done.stderr.splitlines()[-1] == SAYS[signal.Signals(number)]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "cleaned-up").exists()
    assert left_running(mark, 0) == []


def test_a_stage_ended_by_a_signal_ends_the_demo_with_its_status(tmp_path: Path) -> None:
    before = """
import sys
import cli.demo
popen = cli.demo.subprocess.Popen
die = "import os; os.kill(os.getpid(), 9)"
cli.demo.subprocess.Popen = lambda line: popen([sys.executable, "-c", die])
"""
    done = run_command("omni-demo", cwd=tmp_path, before=before)
    assert done.returncode == 137
    assert one_line(done.stderr).startswith("error: omni-extract ended with status 137")


def test_the_kit_sees_what_is_left(mark: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, MARK: mark},
        cwd=ROOT,
    )
    try:
        while not (seen := left_running(mark, 0)) and child.poll() is None:
            pass  # its environment shows a moment after it is there
        assert len(seen) == 1
    finally:
        child.kill()
        child.wait()
    assert left_running(mark) == []
