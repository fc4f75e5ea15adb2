"""Which device a process gets, with CUDA played: no card is needed.

.venv/bin/python -m pytest tests/omni/test_device.py
"""

import pytest
import torch

from omni.device import pick_device
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
