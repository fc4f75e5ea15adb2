"""A process that dies by SIGKILL in the middle of a shard: no watcher has to catch the moment.

A watcher that polls for a half-written file starves on a loaded machine and comes too late. The signal
is the same whoever sends it: no handler runs, nothing is flushed or removed.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omni.formats.shard_writer import ShardWriter

DIE_AT = 3  # the utterance of a shard whose writing the process does not survive


def command_that_dies(marker: Path, *args: str) -> list[str]:
    """omni-extract with these arguments, in a process of its own that `die_in_mid_shard`."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import kill_kit\n"
        f"kill_kit.run_and_die({str(marker)!r})"
    )
    return [sys.executable, "-c", script, *args]


def run_and_die(marker: str) -> None:
    """What `command_that_dies` runs."""
    from cli.extract import main

    die_in_mid_shard(Path(marker))
    sys.exit(main(sys.argv[1:]))


def die_in_mid_shard(marker: Path) -> None:
    """SIGKILL this process as it adds the third utterance to a shard, once another is committed.

    Args:
        marker: written just before, with the process's id and the half-written file's name; who finds
            it lives on, so of the processes that share one a single one dies, once.
    """
    from omni.formats.shard_writer import EncodedSample, ShardWriter

    append, added = ShardWriter.append, dict[str, int]()

    def append_or_die(self: ShardWriter, sample: EncodedSample) -> None:
        added[self.name] = added.get(self.name, 0) + 1
        if added[self.name] == DIE_AT and _another_is_committed(self):
            (half_written,) = self.path.parent.glob(f".{self.name}.*.tmp")
            if _is_first(marker, f"{os.getpid()} {half_written.name}"):
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # not one more instruction of ours
        append(self, sample)

    ShardWriter.append = append_or_die  # type: ignore[method-assign]


def died(marker: Path) -> str:
    """The name of the file that was half-written, once the process that wrote it is gone."""
    assert marker.is_file(), "no process died: nothing is proven"
    pid, _, name = marker.read_text().partition(" ")
    deadline = time.monotonic() + 60
    while _alive(int(pid)):
        assert time.monotonic() < deadline, f"process {pid} survived SIGKILL"
        time.sleep(0.01)
    return name


def _another_is_committed(writer: "ShardWriter") -> bool:
    """Waits for it behind a process's first shard: it is committed in the background."""
    deadline = time.monotonic() + (0 if writer.name.endswith("-000000") else 30)
    while not any(writer.path.parent.glob("*-[0-9]*.json")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _is_first(marker: Path, text: str) -> bool:
    try:
        with marker.open("x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
