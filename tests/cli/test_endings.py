"""Whatever ends a command is one line with the path, and a status; output goes to any terminal.

.venv/bin/python -m pytest tests/cli/test_endings.py
"""

import errno
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_kit import environment, files_below, module_of, one_line, run_command
from hypothesis import given
from hypothesis import strategies as st

from cli import _common, doctor
from cli._common import Ending, explain, make_parser
from omni.errors import OmniError
from omni.nanochat.discovery import find_checkpoint


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (OmniError("bad", "here", "mend it", 3), "error: bad (here): mend it", 3),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            "error: permission denied (/a/b): mend its permissions, or choose another place",
            1,
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", Path("/x y/z")),
            "error: no space left on device (/x y/z): make room and run the same command again",
            1,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "error: no space left on device: make room and run the same command again", 1),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"/a\xff"), "error: no such file or directory (/a\udcff)", 1),
        (OSError("a page\nof a library"), "error: a page of a library", 1),
        (OSError(), "error: OSError", 1),
        (MemoryError(), "error: out of memory: take less at a time: smaller batches", 1),
        (
            torch.OutOfMemoryError("tried to allocate\n2 GiB"),
            "error: out of memory (tried to allocate 2 GiB): take less at a time: smaller batches",
            1,
        ),
        (KeyError("x"), "error: internal error: KeyError: 'x': run again with --debug, report it", 70),
        (AssertionError(), "error: internal error: AssertionError: run again with --debug, report it", 70),
    ],
)  # fmt: skip
def test_every_error_has_its_line(error: BaseException, line: str, status: int) -> None:
    assert explain(error) == Ending(line, status)


@given(st.text(), st.sampled_from([ValueError, OSError, RuntimeError, OmniError, MemoryError]))
def test_any_message_is_one_line_that_ends(text: str, kind: type[Exception]) -> None:
    line = explain(kind(text)).line
    assert len(line.splitlines()) == 1
    assert len(line) < 1000 or kind is OmniError


def fails_with(error: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A command that raises this."""
    script = f"""
import sys
from cli._common import make_parser, run
def command(args):
    raise {error}
sys.exit(run(lambda: make_parser("omni-x", "x"), command))
"""
    return subprocess.run(
        [sys.executable, "-c", script, *args], env=environment(), capture_output=True, text=True
    )


def test_a_fault_of_ours_names_its_line_and_shows_its_trace_on_request() -> None:
    plain = fails_with("KeyError('x')")
    assert plain.returncode == 70
    assert one_line(plain.stderr).startswith(
        "error: internal error: KeyError: 'x' (cli/_common.py:"
    )
    shown = fails_with("KeyError('x')", "--debug")
    assert shown.returncode == 70
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["omni-extract", "--manifests", "FILE"], "--manifests"),
        (["omni-extract", "--manifests", "FILE/below"], "--manifests"),
        (["omni-extract", "--out", "FILE"], "--out"),
        (["omni-extract", "--json", "FOLDER"], "--json"),
        (["omni-extract", "--json", "FILE/x.json"], "--json"),
        (["omni-train-projector", "--runs", "FILE"], "--runs"),
        (["omni-train-projector", "--run", "FILE"], "--runs"),
        (["omni-eval", "--json", "FOLDER"], "--json"),
        (["omni-pca", "FOLDER"], "OUT"),
        (["omni-pca", "report.json"], "report.json"),
        (["omni-pca", "--png", "FILE"], "--png"),
        (["omni-pca", "--export-projector", "FILE/x"], "--export-projector"),
        (["omni-demo", "--out", "FILE"], "--out"),
    ],
)
def test_a_place_that_takes_nothing_is_told_before_the_work(
    args: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    (tmp_path / "FOLDER").mkdir()
    if args[2:] == ["FILE"] and args[1] == "--run":
        args += ["--runs", "."]
    assert module_of(args[0]).main(args[1:]) == 1
    line = one_line(capsys.readouterr().err)
    assert line.startswith("error: ")
    assert named in line
    assert files_below(tmp_path) == ["FILE", "FOLDER"]


@pytest.mark.parametrize("command", ["omni-extract", "omni-train-projector", "omni-demo"])
def test_a_folder_that_can_only_be_read_is_told_before_the_work(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert module_of(command).main([]) == 1
    assert "can't be written in" in one_line(capsys.readouterr().err)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    "options", [{"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
                {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"},
                {"PYTHONUTF8": "1"}],
)  # fmt: skip
def test_output_goes_to_a_terminal_of_any_encoding(options: dict[str, str]) -> None:
    text = "é 中 😀 \udcff"
    script = f"""
import json, sys
from cli._common import make_parser, run
def command(args):
    print(json.dumps({text!a}, ensure_ascii=False))
    return 0
sys.exit(run(lambda: make_parser("omni-x", "x"), command, []))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(**options), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    coding = "latin-1" if options.get("PYTHONIOENCODING") == "latin-1" else "utf-8"
    read = json.loads(done.stdout.decode(coding))
    assert read == json.loads(json.dumps(text))


@pytest.mark.parametrize("unbuffered", [None, "1"])
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_reader_that_has_had_enough_is_no_error(unbuffered: str | None, size: int) -> None:
    """`omni-x | head -1`: nobody reads any more when the second half is printed."""
    script = f"""
import os, sys
from cli._common import make_parser, run
def command(args):
    print("first", flush=True)
    sys.stdin.readline()
    print("x" * {size})
    return 0
sys.exit(run(lambda: make_parser("omni-x", "x"), command, []))
"""
    running = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment(PYTHONUNBUFFERED=unbuffered),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdin
    assert running.stdout
    assert running.stderr
    assert running.stdout.readline() == "first\n"
    running.stdout.close()
    running.stdin.write("go on\n")
    running.stdin.close()
    said = running.stderr.read()
    running.stderr.close()
    assert (running.wait(60), said) == (141, "")


@pytest.mark.parametrize("command", [["omni-lm", "--help"], ["omni-lm", "inspect", "demo"]])
def test_output_to_a_full_disk_is_one_line(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        script = f"import sys\nfrom cli.lm import main\nsys.exit(main({command[1:]!r}))"
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment(PYTHONUNBUFFERED=None),
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: can't write (No space left on device) (standard output)")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_user_without_a_name_and_a_home(tmp_path: Path) -> None:
    """As `docker run --user 12345`: torch asks for a name when it is imported."""
    nameless = """
import pwd
def unknown(*_):
    raise KeyError("getpwuid(): uid not found: 12345")
pwd.getpwuid = unknown
"""
    gone = dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "NANOCHAT_BASE_DIR"))
    env = environment(**gone)
    done = run_command(
        "omni-lm", "inspect", "auto", cwd=tmp_path, env=env,
        before=nameless + "import getpass\nassert getpass.os",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the demo LM is used" in done.stderr


@pytest.mark.parametrize("name", ["d12", "sft:d12", "~nobody/d12", "~/d12"])
def test_without_a_home_a_checkpoint_is_not_found_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    for variable in ("HOME", "NANOCHAT_BASE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(OmniError):
        find_checkpoint(name)


def test_the_doctor_prints_its_table_whatever_a_check_meets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/home/of/another")

    for check in ("check_torchaudio", "check_device", "check_codecs", "check_disk"):
        monkeypatch.setattr(doctor, check, refused)
    monkeypatch.setattr(doctor, "check_encoder", refused)
    assert doctor.main(["--offline", "--lm", "demo"]) == 1
    lines = capsys.readouterr().out.splitlines()
    bad = [line for line in lines if line.startswith("bad")]
    assert len(bad) == 5
    assert all("permission denied (/home/of/another)" in line for line in bad)
    assert "era E" in lines[-1]


def test_the_parsers_error_folds_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser("omni-x", "x").error("a\nb" + "c" * 2000)
    assert len(one_line(capsys.readouterr().err)) < 800
    assert _common.EXIT_USAGE == 2
