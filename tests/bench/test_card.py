"""The measurement of a card runs without one, bounded, and a part that fails is a row that says why.

.venv/bin/python -m pytest tests/bench/test_card.py
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from bench.card import __main__ as card
from bench.card import encoding, training
from bench.card.rows import Budget, Row, as_markdown


def test_small_sizes_on_a_cpu_fill_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no such | kernel")

    monkeypatch.setattr(card.decoding, "measure", broken)
    options = ["--device", "cpu", "--small", "--minutes", "0.05", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["card", *options])
    assert card.main() == 0
    rows = [Row(**row) for row in json.loads((tmp_path / "card.json").read_text())["rows"]]
    known = {row.what: row.value for row in rows if row.value is not None}
    assert known["batch 2, eager"] > 0
    assert known["d2, batch 2, a step"] > 0
    (failed,) = [row for row in rows if row.value is None]
    assert (failed.part, failed.note) == (card.decoding.PART, "RuntimeError: no such | kernel")
    assert (
        "| failed | none | RuntimeError: no such / kernel |" in (tmp_path / "card.md").read_text()
    )


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
