"""What the machine has of NVIDIA's, whatever torch makes of it: devices, the driver, and which CUDA it
can serve.

Asks files and the driver's own library; torch is not imported. Must not know what is computed.
"""

import contextlib
import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_VENDOR = "0x10de"  # NVIDIA's, of a PCI device
_DISPLAY = "0x03"  # first byte of the class of a card that draws or computes

# The oldest driver for Linux that serves a CUDA of this generation. Source: NVIDIA, CUDA Compatibility,
# "Minor Version Compatibility", table 1 (docs.nvidia.com/deploy/cuda-compatibility).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True)
class Nvidia:
    """devices: how they show themselves, empty where there is none. driver: (580, 65), or None where it
    is not loaded. cuda: the newest that the driver serves, (13, 0), or None where it can't be asked."""

    devices: tuple[str, ...] = ()
    driver: tuple[int, ...] | None = None
    cuda: tuple[int, int] | None = None


def find_nvidia(root: Path = Path("/"), ask: Callable[[], int | None] | None = None) -> Nvidia:
    """Look at the machine.

    Args:
        root: that of the file system.
        ask: CUDA's version as the driver's library tells it (13000); None: `driver_cuda`.
    """
    asked = (ask or driver_cuda)()
    cuda = (asked // 1000, asked % 1000 // 10) if asked else None
    return Nvidia(_devices(root), _driver(root), cuda)


def _devices(root: Path) -> tuple[str, ...]:
    """Device files where the driver made them, else what is on the PCI bus."""
    with contextlib.suppress(OSError):
        made = sorted(p.name for p in (root / "dev").glob("nvidia[0-9]*"))
        if made:
            return tuple(f"/dev/{name}" for name in made)
    found = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor, kind = _read(device / "vendor"), _read(device / "class")
        if vendor == _VENDOR and kind.startswith(_DISPLAY):
            found.append(f"PCI device {device.name}")
    if (
        not found
        and (root / "dev/dxg").exists()
        and (root / "usr/lib/wsl/lib/libcuda.so.1").exists()
    ):
        found.append("/dev/dxg (WSL)")
    return tuple(found)


def _driver(root: Path) -> tuple[int, ...] | None:
    """`NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …`"""
    text = _read(root / "proc/driver/nvidia/version") or _read(root / "sys/module/nvidia/version")
    found = re.search(r"\b([0-9]{3,4})\.([0-9]{1,3})(?:\.[0-9]{1,3})?\b", text)
    return (int(found[1]), int(found[2])) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def driver_cuda() -> int | None:
    """The newest CUDA that the driver serves, as its own library says: 13000 for 13.0."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        version = ctypes.c_int(0)
        if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value or None


def too_old(nvidia: Nvidia, built: tuple[int, int]) -> str:
    """What is wrong with the driver for a program that was built with this CUDA; "" if nothing is."""
    if nvidia.driver is None and nvidia.cuda is None:
        return "its driver is not loaded"
    version = ".".join(map(str, nvidia.driver)) if nvidia.driver else "of unknown version"
    if nvidia.cuda is not None:  # the library knows best: a package beside the driver may be newer
        if nvidia.cuda[0] >= built[0]:
            return ""
        return f"its driver {version} serves CUDA {nvidia.cuda[0]}.{nvidia.cuda[1]} and older"
    oldest = OLDEST_DRIVER.get(built[0], 0)
    return f"its driver is {version}" if nvidia.driver and nvidia.driver[0] < oldest else ""


def driver_mend(built: tuple[int, int]) -> str:
    """What to install for a torch that was built with this CUDA."""
    wanted = f"CUDA {built[0]}.{built[1]}"
    oldest = OLDEST_DRIVER.get(built[0])
    driver = f"NVIDIA's driver {oldest} or newer" if oldest else "NVIDIA's newest driver"
    return (
        f"install {driver}, for this torch was built with {wanted}; or a torch with an older CUDA"
    )


def parse_cuda(version: str) -> tuple[int, int]:
    """`13.0` as torch.version.cuda says it."""
    major, minor, *_ = [*version.split("."), "0"]
    return int(major), int(minor)


def has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a build has code for a card: of its generation and no newer, or an older one's that the
    driver translates.

    Args:
        capability: of the card, (8, 6).
        built_for: as torch lists it, `sm_80`, `sm_90a`, `compute_120`.
    """
    for name in built_for:
        found = re.fullmatch(r"(sm|compute)_([0-9]+)([0-9])([af]?)", name)
        if not found:
            continue
        made = int(found[2]), int(found[3])
        if found[4]:  # for this very card, or its family
            able = made == capability or (found[4] == "f" and made[0] == capability[0])
        else:
            able = made <= capability and (found[1] == "compute" or made[0] == capability[0])
        if able:
            return True
    return False
