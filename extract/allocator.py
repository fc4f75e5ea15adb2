"""Freed memory back to the system at once, so that a long extraction takes no more than a short one.

glibc gives large blocks pages of their own until the first one is freed; then it raises the limit, up
to 32 MiB, and windows of ever another length leave holes in the heap that nothing fits. Must not know
what the memory is used for.
"""

import ctypes
import platform

_M_MMAP_THRESHOLD = -3  # malloc.h
# Above the samples of a usual recording (16 s), which decoding threads take and free all the time;
# below what a log-mel, a spectrogram and the encoder take.
_OWN_PAGES_BYTES = 1 << 20


def keep_memory_flat() -> bool:
    """Blocks over 1 MiB always get pages of their own; returns False where there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES))


def give_back_memory() -> None:
    """What is free inside the heap goes back to the system, where glibc can do so; milliseconds."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
