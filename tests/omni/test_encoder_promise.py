"""One frame rate: from the encoder into the fingerprint's config and back, and no second copy."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from omni.audio import SAMPLE_RATE
from omni.encoder import (
    DEFAULT_ENCODER,
    WHISPER_FRAMES_PER_SECOND,
    Encoder,
    frames_per_second,
    rate_config,
)
from omni.formats.run_files import Content
from omni.whisper.encoder import SAMPLES_PER_FRAME, WhisperEncoder, frame_count
from omni.whisper.mel import HOP
from train.data import TrainingData
from train.passes import Shard

ROOT = Path(__file__).parents[2]


@dataclass
class Slow:
    hash: str = "0" * 64
    d_model: int = 8
    n_layers: int = 2
    frames_per_second: float = 12.5


def test_whispers_rate_is_that_of_its_mel_and_its_stride() -> None:
    assert SAMPLES_PER_FRAME == 2 * HOP == SAMPLE_RATE / WHISPER_FRAMES_PER_SECOND
    assert [frame_count(n) for n in (1, 320, 321, 480_000)] == [1, 1, 2, 1500]


@pytest.mark.parametrize("rate", [12.5, 25, 50, 75])
def test_a_rate_comes_back_from_the_config(rate: float) -> None:
    encoder: Encoder = Slow(frames_per_second=rate)
    config = {"encoder": encoder.hash, **rate_config(encoder)}
    assert frames_per_second(config) == rate


def test_shards_of_whisper_keep_their_fingerprint() -> None:
    assert rate_config(Slow(frames_per_second=50)) == {}


@pytest.mark.parametrize("rate", [12.5, 25, 50])
def test_the_longest_utterance_is_told_in_the_features_own_seconds(rate: float) -> None:
    config = rate_config(Slow(frames_per_second=rate))
    shards = [Shard("x", (10, 100), (0, 1), 1.0)]
    nothing = Content(splits=[], rows="")
    data = TrainingData(shards, {}, "x", "f", config, splits=[], content=nothing)
    assert data.longest_seconds == 100 / rate


def test_whisper_keeps_the_promise() -> None:
    wanted = set(Encoder.__annotations__)
    assert wanted == {"hash", "d_model", "n_layers", "frames_per_second"}
    source = Path(sys.modules[WhisperEncoder.__module__].__file__ or "").read_text()
    assert all(re.search(rf"self\.{name}\b", source) for name in wanted)


def test_the_default_encoder_and_the_rate_are_written_once() -> None:
    """Outside of `omni/encoder.py`; the wheels' one model is another thing."""
    folders = ("analyze", "bench", "cli", "extract", "omni", "train")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    allowed = {ROOT / "omni/encoder.py", ROOT / "omni/whisper/weights.py"}
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in set(files) - allowed
        for line in file.read_text().splitlines()
        if f'"{DEFAULT_ENCODER}"' in line or re.search(r"(FRAMES_PER_SECOND|FRAME_SECONDS) =", line)
    ]
    assert not found


def test_the_constant_costs_no_torch() -> None:
    check = "import sys, omni.encoder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
