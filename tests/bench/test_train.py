"""The trainer's bench needs nothing that a clean clone lacks."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from bench import train as bench
from omni.errors import OmniError


def test_a_clean_clone_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an empty folder, without shards and without Whisper's weights."""

    def no_weights(*args: object) -> None:
        raise OmniError("no weights")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "load_encoder", no_weights)
    small = partial(bench.supervised_positions, 1, 4, 2)
    monkeypatch.setattr(bench, "supervised_positions", small)
    monkeypatch.setattr(sys, "argv", ["train", "--steps", "2", "--batch-size", "4"])
    bench.main()
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["shards"] == "made up"
    assert min(figures["step_streamed_s"], figures["step_memory_s"]) > 0
    assert min(figures["loss_supervised_s"], figures["loss_everywhere_s"]) > 0
    assert "whisper_in_the_loop" not in figures
    assert "no Whisper in the loop: no weights" in err
    assert not list(tmp_path.iterdir())


def test_starving_needs_no_lm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Every way of the stream at every number of workers, beside a d12's need."""
    few = partial(bench.make_shards, n=36, shard_size=12)
    monkeypatch.setattr(bench, "make_shards", lambda folder, length: few(folder, length=(9, 30)))
    monkeypatch.setattr(bench, "load_checkpoint", None)
    monkeypatch.setattr(sys, "argv", ["train", "--starve", "--steps", "2", "--workers", "0", "1"])
    bench.main()
    found = json.loads(capsys.readouterr().out)
    assert len(found["audio_hours_per_s"]) == 6
    assert min(found["audio_hours_per_s"].values()) > 0
    slow, fast = found["takes_audio_hours_per_s"].values()
    assert fast == pytest.approx(5 * slow)
    # 32 utterances of 12.7 s in about 27 ms, at 80 TFLOP/s.
    assert slow == pytest.approx(32 * 12.7 / 3600 / 0.027, rel=0.2)
