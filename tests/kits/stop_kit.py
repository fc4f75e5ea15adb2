"""A process that gets a signal from itself at a stated point, and a look at what it leaves running.

No watcher has to catch the moment. What a process starts inherits its environment: a word in it finds
every child, and theirs, in /proc.
"""

import os
import time
from pathlib import Path

MARK = "OMNI_TEST_MARK"


def at_import(module: str, number: int) -> str:
    """Python that sends this process a signal as `module` is about to be imported."""
    return f"""
import importlib.abc, os, sys
class Stopper(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Stopper())
"""


def at_call(module: str, name: str, count: int, number: int) -> str:
    """Python that sends this process a signal as `module`'s `name` (dotted: a method) is called for
    the `count`th time."""
    owner, _, function = name.rpartition(".")
    return f"""
import importlib, os
owner = importlib.import_module({module!r})
owner = getattr(owner, {owner!r}) if {owner!r} else owner
whole, calls = getattr(owner, {function!r}), []
def stopping(*args, **kwargs):
    calls.append(1)
    if len(calls) == {count}:
        os.kill(os.getpid(), {number})
    return whole(*args, **kwargs)
setattr(owner, {function!r}, stopping)
"""


def left_running(mark: str, seconds: float = 20.0) -> list[str]:
    """Command lines of the processes with this mark that don't end by themselves within `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _marked(mark: str) -> list[str]:
    found, wanted = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"{folder.name} {os.fsdecode(line)}")
        except OSError:
            continue  # it has ended, or is not ours
    return found
