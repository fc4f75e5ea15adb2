"""The bench of the host alone: its stages exist, its clock gives each its own time, its sums are right.

.venv/bin/python -m pytest tests/bench/test_no_encoder.py
"""

import threading
import time

import pytest

from bench.no_encoder import STAGES, Clock, Run, find, told


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_function_of_this_checkout(stage: str) -> None:
    assert any(find(name)[0] is not None for name in STAGES[stage])


def test_a_stage_inside_another_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "thread_time", lambda: now[0] / 2)
    clock = Clock()

    def inner() -> None:
        now[0] += 3

    def outer() -> None:
        now[0] += 1
        clock.timed("convert", inner)()
        now[0] += 1

    writer = threading.Thread(target=clock.timed("tar", outer), name="write_0")
    writer.start()
    writer.join()
    assert dict(clock.wall) == {"convert": 3, "tar": 2}
    assert dict(clock.cpu) == {"convert": 1.5, "tar": 1}
    assert clock.writing == 2.5
    clock.timed("convert", inner)()
    assert (clock.wall["convert"], clock.writing) == (6, 2.5)


@pytest.mark.parametrize(
    ("cpu", "main", "write", "seconds"), [(16, 1, 2, 57), (64, 1, 1, 114), (16, 4, 1, 114)]
)
def test_a_larger_machine_by_arithmetic(cpu: int, main: int, write: int, seconds: int) -> None:
    stages = dict.fromkeys(STAGES, 0.0)
    run = Run(1000, 20, cpu, main, write, stages, stages)
    said = "\n".join(told("some", run))
    assert f"{seconds:.1f} s ({'under' if seconds < 60 else 'NOT under'} 60)" in said
