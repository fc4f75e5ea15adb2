"""Which device a process gets, with CUDA played: no card is needed.

.venv/bin/python -m pytest tests/omni/test_device.py
"""

import pytest
import torch

from omni import device
from omni.device import pick_device
from omni.device.nvidia import Nvidia
from omni.errors import OmniError


@pytest.fixture
def made_current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two devices, and what was made the current one."""
    made: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    return made


@pytest.mark.parametrize(
    ("name", "local_rank", "got", "index"),
    [
        ("auto", None, "cuda", 0),
        ("cuda", None, "cuda", 0),
        ("cuda:1", None, "cuda:1", 1),
        ("cuda", 1, "cuda:1", 1),
        ("auto", 3, "cuda:1", 1),
        ("cuda:0", 1, "cuda:0", 0),
    ],
)
def test_the_device_that_is_picked_is_the_current_one(
    made_current: list[int], name: str, local_rank: int | None, got: str, index: int
) -> None:
    assert pick_device(name, local_rank) == got
    assert made_current == [index]


@pytest.mark.parametrize("local_rank", [0, 1, 3, 7])
def test_a_task_that_is_shown_one_device_takes_it(
    made_current: list[int], monkeypatch: pytest.MonkeyPatch, local_rank: int
) -> None:
    """srun --gpus-per-task 1: each task sees one, and SLURM_LOCALID counts the tasks."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda", local_rank) == "cuda:0"
    assert made_current == [0]


def test_a_cpu_and_a_refusal_set_nothing(made_current: list[int]) -> None:
    assert pick_device("cpu") == "cpu"
    with pytest.raises(OmniError, match=r"2 CUDA devices, the last is cuda:1"):
        pick_device("cuda:2")
    assert made_current == []


@pytest.fixture
def idle_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that this torch finds no driver for."""

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is\ntoo old (found version 12080).")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(
        device, "find_nvidia", lambda: Nvidia(("/dev/nvidia0",), (570, 86), (12, 8))
    )


def test_auto_that_falls_back_beside_a_card_says_so_and_why(
    idle_card: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pick_device("auto") == "cpu"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: computing on the CPU")
    assert "/dev/nvidia0" in line
    assert "too old (found version 12080). omni-doctor" in line
    with pytest.raises(OmniError, match=r"no CUDA device \(The NVIDIA driver .*omni-doctor"):
        pick_device("cuda")


def test_who_asked_for_the_cpu_is_told_nothing(
    idle_card: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pick_device("cpu") == "cpu"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert pick_device("auto") == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(device, "find_nvidia", Nvidia)
    assert pick_device("auto") == "cpu"
    assert capsys.readouterr().err == ""
