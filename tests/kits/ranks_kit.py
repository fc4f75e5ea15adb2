"""Several ranks on this machine, of the training command or of any other, each with arguments of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from places import ROOT


class Ended(NamedTuple):
    """How a rank ended."""

    status: int
    said: list[str]  # lines of standard error

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said if line.startswith("error:")]


def train_ranks(arguments: Sequence[Sequence[str]], timeout: float = 240) -> list[Ended]:
    """`omni-train-projector` with the first arguments as rank 0, and so on; a rank that hangs is an
    error."""
    return python_ranks([["-m", "cli.train_projector", *args] for args in arguments], timeout)


def python_ranks(arguments: Sequence[Sequence[str]], timeout: float = 240) -> list[Ended]:
    """As `train_ranks`, with what follows `python`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(len(arguments)),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, *args],
            cwd=ROOT, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank, args in enumerate(arguments)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=timeout)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(p.returncode, text.splitlines()) for p, text in zip(started, said, strict=True)]
