"""What is freed goes back to the system, in a process of its own: the setting can't be undone.

.venv/bin/python -m pytest tests/test_allocator.py
"""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import numpy as np
from extract.allocator import give_back_memory, keep_memory_flat

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if "flat" in sys.argv:
    assert keep_memory_flat()
first = np.ones(30 << 20, np.uint8)
del first  # glibc raises its limit here, unless told not to
before = resident_mib()
blocks, pins = [], []
for i in range(30):
    blocks.append(np.ones((5 << 20) + 4096 * i, np.uint8))
    pins.append(np.ones(4000, np.uint8))
del blocks
held = resident_mib() - before
if "trim" in sys.argv:
    give_back_memory()
print(held, resident_mib() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_blocks_do_not_stay() -> None:
    def grown(*how: str) -> list[float]:
        root = Path(__file__).resolve().parent.parent
        command = [sys.executable, "-c", SCRIPT, *how]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    assert grown()[0] > 100, "without the setting there is nothing to mend"
    assert grown("flat")[0] < 10
    held, trimmed = grown("trim")
    assert held > 100
    assert trimmed < 10
