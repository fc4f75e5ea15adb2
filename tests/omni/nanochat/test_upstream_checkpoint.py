"""A checkpoint that upstream's own code trained and saved, in its own layout (tests/data/upstream).

Made by karpathy/nanochat at 92d63d4: its tokenizer training, its model, its checkpoint manager;
expected.json holds its logits and what its `generate()` wrote, greedy and sampled; merged.json the
logits that its loader and model gave of this checkpoint with adapters folded in by omni-lm merge.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nanochat_reference import weight
from places import ROOT

from omni.nanochat import load_checkpoint
from omni.nanochat.generate import generate
from omni.nanochat.lora import Lora
from omni.nanochat.merge import write_merged

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


def test_what_upstream_says_with_adapters_folded_in(
    expected: dict[str, Any], tmp_path: Path
) -> None:
    found = json.loads((BASE / "merged.json").read_text())
    lm, _, meta = load_checkpoint(BASE)
    lora = Lora(lm.config, found["rank"], found["alpha"])
    with torch.no_grad():
        for key, p in lora.named_parameters():
            p.copy_(weight(key, tuple(p.shape)))
    want = torch.tensor(found["logits_first6"])
    ids = torch.tensor([expected["ids"]])
    merged = load_checkpoint(write_merged(lm, meta, lora, tmp_path / "d3"))[0]
    worn = lm.wear(lora).forward_embeds(*lm.embed(ids), heard=True)
    for logits in (worn, merged(ids)):
        assert (logits[0, found["positions"], :6] - want).abs().max() <= 2e-5
    assert (lm(ids)[0, found["positions"], :6] - want).abs().max() > 0.5
