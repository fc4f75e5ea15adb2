"""The commands as tests see them: their names and parsers, and a run in a process of its own.

Every command is found in `[project.scripts]`, so that a new one is tested without being named here.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from places import KITS, ROOT


def commands() -> dict[str, str]:
    """Name of each command to its module: `omni-eval` to `cli.eval`."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {name: place.partition(":")[0] for name, place in scripts.items()}


def module_of(name: str) -> ModuleType:
    """The imported module of a command."""
    return importlib.import_module(commands()[name])


def parser_of(name: str) -> argparse.ArgumentParser:
    """The command's parser."""
    build: Callable[[], argparse.ArgumentParser] = module_of(name).build_parser
    return build()


def environment(**changes: str | None) -> dict[str, str]:
    """The tests' environment with our packages to import, and these changes; None takes one out."""
    paths = os.pathsep.join((str(ROOT), str(KITS)))
    given = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **changes}
    return {key: value for key, value in given.items() if value is not None}


def run_command(
    name: str, *args: object, cwd: Path, env: dict[str, str] | None = None, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command as its console script does, in a process of its own.

    Args:
        before: Python that runs before the command's first import.
    """
    return subprocess.run(
        [sys.executable, "-c", script_of(name, before), *map(str, args)],
        cwd=cwd,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """What a terminal starts heeds these signals; what nohup or `&` starts, the tests among it, does not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def script_of(name: str, before: str = "") -> str:
    """What the console script of a command does, after `before`."""
    return f"{before}\nimport sys\nfrom {commands()[name]} import main\nsys.exit(main())"


def one_line(text: str) -> str:
    """The only line of standard error; fails if there are more or none."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


def files_below(folder: Path) -> Sequence[str]:
    """Everything below a folder, by its relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
