"""The measurement of a card runs without one, bounded, and a part that fails is a row that says why.

.venv/bin/python -m pytest tests/bench/test_card.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from places import ROOT

from bench.card import __main__ as card
from bench.card import encoding, training
from bench.card.rows import Budget, OutOfTimeError, Row, as_markdown, bounded


def test_small_sizes_on_a_cpu_fill_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no such | kernel")

    monkeypatch.setattr(card.decoding, "measure", broken)
    options = ["--device", "cpu", "--small", "--minutes", "30", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["card", *options])
    assert card.main() == 0
    rows = [Row(**row) for row in json.loads((tmp_path / "card.json").read_text())["rows"]]
    known = {row.what: row.value for row in rows if row.value is not None}
    assert known["batch 2, eager"] > 0
    assert known["d2, batch 2, a step"] > 0
    assert known["files to shards"] > 0
    assert known["the stage that binds"] > 0
    assert 0 <= known["d2, batch 2, waiting for data"] <= 100
    (failed,) = [row for row in rows if row.value is None]
    assert (failed.part, failed.note) == (card.decoding.PART, "RuntimeError: no such | kernel")
    assert (
        "| failed | none | RuntimeError: no such / kernel |" in (tmp_path / "card.md").read_text()
    )


FOREIGN = "datasets pyarrow wandb soundfile webdataset braceexpand jiwer ray av modelscope rustbpe"
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys("{FOREIGN}".split()))  # None: an import of it fails
from bench.card.__main__ import main
sys.argv = ["card", "--device", "cpu", "--small", "--minutes", "10", "--out", sys.argv[1]]
sys.exit(main())
"""


@pytest.mark.slow
def test_a_machine_without_the_projects_other_packages_measures_what_needs_none(
    tmp_path: Path,
) -> None:
    """What a machine for measuring lacks can't be imported; pydantic and universal-pathlib travel."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [Row(**row) for row in json.loads((tmp_path / "card.json").read_text())["rows"]]
    failed = {row.part: row.note for row in rows if row.value is None}
    assert failed.keys() == {card.whole.EXTRACTION, card.whole.WAITING}
    assert all(failed.values()), failed  # each says why
    assert {row.part for row in rows if row.value} == {
        card.encoding.PART,
        card.training.PART,
        card.decoding.PART,
    }


def test_a_part_that_takes_too_long_is_broken_off() -> None:
    """Even one that takes what breaks it off for a failure of its own: it has no time left."""
    began = time.monotonic()
    with pytest.raises(OutOfTimeError, match="0 s were not enough"), bounded(0.2):
        time.sleep(60)
    assert time.monotonic() - began < 30
    with bounded(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_device_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["card"])
    with pytest.raises(SystemExit) as ended:
        card.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: torch sees no CUDA device")


def test_a_part_without_time_measures_nothing_and_says_so() -> None:
    rows = list(encoding.measure(torch.device("cpu"), Budget.of(-1), (2, 4), 1))
    assert [row.value for row in rows if row.unit == "windows/s"] == [None, None]
    assert as_markdown({}, rows).count("out of time") == 2


def test_operations_of_a_step_are_those_that_are_counted() -> None:
    """Against torch's own count of one forward and backward pass, attention's products left out."""
    from torch.utils.flop_counter import FlopCounterMode

    trainee, packed = training._prepare(card._tiny(), torch.device("cpu"), 2)
    trainee.ctc = 0.0
    with FlopCounterMode(display=False) as counter:
        training.train_step(trainee, packed, 1e-4)
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if "attention" not in str(op))
    n_text = len(trainee.tok.encode(packed.texts[0])) + 1
    n_soft = -(-training.FRAMES // trainee.projector.stack)
    template = trainee.template
    others = len(template.before(trainee.tok)) + len(template.after(trainee.tok))
    positions = 2 * (n_soft + others + n_text)
    config = trainee.lm.config
    ours = training.step_flops(config, positions, 2 * n_text, trainee.projector, 2 * n_soft)
    assert ours == pytest.approx(products, rel=0.03)
