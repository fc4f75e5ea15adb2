"""What is found of NVIDIA's in a file system, and which driver serves which CUDA.

.venv/bin/python -m pytest tests/omni/test_nvidia.py
"""

from pathlib import Path

import pytest

from omni.device.nvidia import Nvidia, driver_mend, find_nvidia, has_kernels, parse_cuda, too_old

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023"
GCC = "\nGCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def pci(number: str, vendor: str, kind: str) -> dict[str, str]:
    folder = f"sys/bus/pci/devices/0000:{number}"
    return {f"{folder}/vendor": f"{vendor}\n", f"{folder}/class": f"{kind}\n"}


@pytest.mark.parametrize(
    ("files", "asked", "found"),
    [
        ({}, None, Nvidia()),
        (
            {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "proc/driver/nvidia/version": OPEN + GCC},
            13000,
            Nvidia(("/dev/nvidia0", "/dev/nvidia1"), (580, 65), (13, 0)),
        ),
        ({"dev/nvidia0": "", "proc/driver/nvidia/version": CLOSED + GCC}, 12020, Nvidia(("/dev/nvidia0",), (535, 104), (12, 2))),
        # No driver: the card shows on the bus; the sound of a card and others' cards don't count.
        ({**pci("01:00.0", "0x10de", "0x030000"), **pci("01:00.1", "0x10de", "0x040300")}, None, Nvidia(("PCI device 0000:01:00.0",))),
        ({**pci("02:00.0", "0x10de", "0x030200")}, None, Nvidia(("PCI device 0000:02:00.0",))),
        ({**pci("00:02.0", "0x8086", "0x030000")}, None, Nvidia()),
        ({"dev/nvidiactl": "", "sys/module/nvidia/version": "470.223.02\n"}, None, Nvidia((), (470, 223))),
    ],
)  # fmt: skip
def test_what_there_is(
    tmp_path: Path, files: dict[str, str], asked: int | None, found: Nvidia
) -> None:
    assert find_nvidia(machine(tmp_path, files), lambda: asked) == found


def test_this_machine_can_be_asked() -> None:
    assert isinstance(find_nvidia(), Nvidia)


@pytest.mark.parametrize(
    ("nvidia", "built", "words"),
    [
        (Nvidia(driver=(580, 65), cuda=(13, 0)), "13.0", ""),
        (Nvidia(driver=(580, 65), cuda=(13, 0)), "13.1", ""),  # of one generation
        (Nvidia(driver=(580, 65), cuda=(13, 0)), "12.8", ""),
        (
            Nvidia(driver=(570, 86), cuda=(12, 8)),
            "13.0",
            "driver 570.86 serves CUDA 12.8 and older",
        ),
        (Nvidia(driver=(570, 86)), "13.0", "driver is 570.86"),
        (Nvidia(driver=(570, 86)), "12.8", ""),
        (Nvidia(driver=(525, 60)), "12.6", ""),
        (Nvidia(driver=(515, 43)), "12.6", "driver is 515.43"),
        (Nvidia(driver=(535, 104), cuda=(13, 0)), "13.0", ""),  # a compatibility package beside it
        (Nvidia(("PCI device 0000:01:00.0",)), "13.0", "its driver is not loaded"),
    ],
)
def test_a_driver_that_is_too_old(nvidia: Nvidia, built: str, words: str) -> None:
    said = too_old(nvidia, parse_cuda(built))
    assert words in said
    assert bool(words) == bool(said)


def test_the_driver_to_install_is_named() -> None:
    assert "driver 580 or newer" in driver_mend((13, 0))
    assert "driver 525 or newer" in driver_mend((12, 8))
    assert "newest driver" in driver_mend((99, 0))
    assert parse_cuda("13") == (13, 0)


@pytest.mark.parametrize(
    ("capability", "able"),
    [((6, 1), False), ((7, 0), False), ((7, 5), True), ((8, 6), True), ((8, 9), True), ((9, 0), True),
     ((10, 3), True), ((12, 1), True), ((13, 0), True)],
)  # fmt: skip
def test_kernels_for_a_card(capability: tuple[int, int], able: bool) -> None:
    """A wheel with kernels for 7.5 to 12.0, and code for what is newer."""
    built_for = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
    assert has_kernels(capability, built_for) == able


def test_kernels_for_one_card_serve_no_other() -> None:
    assert has_kernels((9, 0), ["sm_90a"])
    assert not has_kernels((9, 1), ["sm_90a"])
    assert has_kernels((10, 3), ["sm_100f"])
    assert not has_kernels((12, 0), ["sm_100f", "nonsense"])
