"""How long a run lasts when nobody says: ten passes within bounds, by samples or by frames."""

import pytest

from train.content import content_of
from train.data import TrainingData
from train.passes import Shard


def data(n: int, weight: float = 1.0, frames: int = 100) -> TrainingData:
    shard = Shard("a.tar", (frames,) * n, tuple(range(n)), weight)
    return TrainingData([shard], {}, "", "", {}, [], content_of([], []))


@pytest.mark.parametrize(
    ("n", "weight", "batch_frames", "steps"),
    [
        (400, 1.0, 0, 125),
        (400, 2.0, 0, 250),
        (28_539, 1.0, 0, 8000),
        (3, 1.0, 0, 100),
        (400, 1.0, 200, 2000),
    ],
)
def test_default_steps(n: int, weight: float, batch_frames: int, steps: int) -> None:
    assert data(n, weight).steps(32, batch_frames) == steps


def test_longest_utterance_counts_only_what_trains() -> None:
    shard = Shard("a.tar", (50, 900, 150), (0, 2))
    assert TrainingData([shard], {}, "", "", {}, [], content_of([], [])).longest_seconds == 3.0
