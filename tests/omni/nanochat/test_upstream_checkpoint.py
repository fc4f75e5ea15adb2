"""A checkpoint that upstream's own code trained and saved, in its own layout (tests/data/upstream).

Made by karpathy/nanochat at 92d63d4: its tokenizer training, its model, its checkpoint manager;
expected.json holds its logits and what its `generate()` wrote, greedy and sampled.
"""

import json
from typing import Any

import pytest
import torch
from places import ROOT

from omni.nanochat import load_checkpoint
from omni.nanochat.generate import generate

BASE = ROOT / "tests" / "data" / "upstream"


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((BASE / "expected.json").read_text())


def test_logits_of_a_row_three_times_sequence_len(expected: dict[str, Any]) -> None:
    lm, tokenizer, meta = load_checkpoint(BASE)
    assert (lm.era.name, meta["kind"], meta["step"]) == ("E", "base", 300)
    assert tokenizer.vocab_size == lm.config.vocab_size == 320
    assert len(expected["ids"]) > 3 * lm.config.sequence_len
    logits = lm(torch.tensor([expected["ids"]]))[0, expected["positions"], :6]
    assert (logits - torch.tensor(expected["logits_first6"])).abs().max() <= 1e-5


def test_generate_writes_upstreams_text(
    expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(BASE))
    lm, tokenizer, _ = load_checkpoint("d3")
    ids = [tokenizer.special("bos"), *tokenizer.encode(expected["prompt"])]
    rows, ve = lm.embed(torch.tensor([ids]))
    lengths = torch.tensor([len(ids)])
    n = len(expected["greedy"])
    greedy = generate(lm, rows, ve, lengths, set(), n)[0]
    assert greedy == expected["greedy"]
    assert tokenizer.decode(greedy) == expected["greedy_text"]
    sampled = generate(
        lm,
        rows,
        ve,
        lengths,
        set(),
        len(expected["sampled"]),
        temperature=expected["temperature"],
        top_k=expected["top_k"],
        seed=expected["seed"],
    )
    assert sampled[0] == expected["sampled"]
