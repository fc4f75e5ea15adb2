"""What is freed goes back to the system, in a process of its own: the setting can't be undone.

.venv/bin/python -m pytest tests/extract/test_allocator.py
"""

import ctypes
import platform
import subprocess
import sys

import pytest
from places import ROOT

SCRIPT = """
import ctypes
import sys
import numpy as np
from extract.allocator import give_back_memory, keep_memory_flat

class Mallinfo2(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]

glibc = ctypes.CDLL(None)
glibc.mallinfo2.restype = Mallinfo2

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def free_in_heap_mib():  # fordblks: what was freed and not given back
    return glibc.mallinfo2().field8 / 2**20

if "flat" in sys.argv:
    assert keep_memory_flat()
first = np.ones(30 << 20, np.uint8)
del first  # glibc raises its limit here, unless told not to
before = resident_mib()
blocks, pins = [], []
for i in range(30):
    blocks.append(np.ones((5 << 20) + 4096 * i, np.uint8))
    pins.append(np.ones(100_000, np.uint8))
del blocks
held = free_in_heap_mib()
if "trim" in sys.argv:
    give_back_memory()
print(held, resident_mib() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="glibc's allocator, 2.33 or later",
)
def test_freed_blocks_do_not_stay() -> None:
    def grown(*how: str) -> tuple[float, float]:
        root = ROOT
        command = [sys.executable, "-c", SCRIPT, *how]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        held, resident = (float(word) for word in done.stdout.split())
        return held, resident

    assert grown()[0] > 100, "without the setting there is nothing to mend"
    held, resident = grown("flat")
    assert held < 10
    assert resident < 10
    held, resident = grown("trim")
    assert held > 100
    assert resident < 10
