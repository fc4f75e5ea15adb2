"""Memory of a training on a CPU: what oneDNN keeps of shapes that have passed.

.venv/bin/python -m pytest tests/train/test_memory.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from train import loop
from train.options import TrainOptions

MET_AGAIN = """
import torch
from train.memory import keep_primitives_few
keep_primitives_few()
conv = torch.nn.Conv1d(64, 64, 8, stride=4)
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
    for length in [*range(200, 260), 200]:
        conv(torch.zeros(4, 64, length))
"""


def created(capacity: str | None) -> list[str]:
    """For each of 61 convolutions, the last of a shape seen 60 before, whether oneDNN had it
    ("hit") or made it ("miss")."""
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    environment = {k: v for k, v in os.environ.items() if k != name}
    environment |= {name: capacity} if capacity else {}
    ran = subprocess.run(
        [sys.executable, "-c", MET_AGAIN], env=environment, capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    made = re.findall(r"create:cache_(hit|miss),cpu,convolution,", ran.stdout)
    if not made:
        pytest.skip("this torch computes a convolution without oneDNN")
    assert len(made) == 61
    return made


def test_shapes_that_have_passed_are_let_go() -> None:
    assert created(None)[-1] == "miss"


def test_what_the_user_has_set_stays() -> None:
    assert created("1024")[-1] == "hit"


def test_a_training_says_so_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "keep_primitives_few", said)
    with pytest.raises(KeyboardInterrupt):
        loop.train(TrainOptions(shards=(str(tmp_path),), device="cpu"), tmp_path / "run")
