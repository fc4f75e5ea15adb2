"""Logits held to upstream's own, commit by commit, and to a slow forward pass from the formulas."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nanochat_reference import ids_by_rule, ruled_model, ruled_state, slow_logits
from places import ROOT, SHARED

from omni.nanochat import NanoChat, NanoChatConfig, from_state_dict

GOLDENS = SHARED / "golden" / "nanochat_goldens.jsonl"
# Made by running upstream's gpt.py of each commit on the weights of nanochat_reference.py: rows
# longer than sequence_len, windows shorter than the row, odd and even depth, MQA, GQA and MHA.
OURS = ROOT / "tests" / "data" / "nanochat_upstream.jsonl"


def lines(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def load(case: dict[str, Any], state: dict[str, Any]) -> NanoChat:
    """Through the public loader; overrides only where keys can't tell."""
    told: dict[str, Any] = {}
    if case["era"] == "C20":
        told = {"softcap": 20.0, "rope_bf16": case["rope_rounded_to_bf16"]}
    elif case["era"] == "C":
        told = {"softcap": 15.0}
    return from_state_dict(state, case["config"], **told)


def check(case: dict[str, Any], lm: NanoChat) -> None:
    ids = ids_by_rule()
    with torch.no_grad():
        logits = lm(ids)[0]
    assert logits.shape == (600, 300)
    assert lm.era.name == case["era"]
    assert lm.era.rope_bf16 == case["rope_rounded_to_bf16"]
    want = torch.tensor(case["logits_first6"])
    assert (logits[case["positions"], :6] - want).abs().max() <= 1e-5
    assert abs(F.cross_entropy(logits[:-1], ids[0, 1:]).item() - case["mean_ce"]) <= 1e-5


def test_ten_upstream_commits_of_every_era_are_held_to() -> None:
    cases = lines(OURS)
    assert len({case["commit"] for case in cases}) == 10
    assert {case["era"] for case in cases} == {"A", "B", "C", "C20", "D", "E"}


@pytest.mark.skipif(not GOLDENS.exists(), reason="no reference data beside the checkout")
@pytest.mark.parametrize("case", lines(GOLDENS), ids=lambda c: f"{c['era']}-{c['commit']}")
def test_reference_commits(case: dict[str, Any]) -> None:
    from nanochat_reference import weight

    state = {key: weight(key, tuple(shape)) for key, shape in case["keys_shapes"].items()}
    assert len(state) == case["n_keys"]
    check(case, load(case, state))


@pytest.mark.parametrize(
    "case",
    lines(OURS),
    ids=lambda c: (
        f"{c['era']}-{c['commit']}-T{c['config']['sequence_len']}"
        f"-{c['config'].get('window_pattern')}-{c['config']['n_layer']}"
    ),
)
def test_upstream_commits_with_long_rows_and_short_windows(case: dict[str, Any]) -> None:
    state = ruled_state(case["era"], NanoChatConfig(**case["config"]), case["vocab_rows"])
    assert len(state) == case["n_keys"]
    check(case, load(case, state))


@pytest.mark.parametrize("era", ["A", "B", "C", "C20", "D", "E"])
def test_a_slow_pass_from_the_formulas_agrees(era: str) -> None:
    # 24 positions at sequence_len 16: every window bites (S is 128 in D and E, so L alone there).
    sizes = {
        "sequence_len": 16,
        "vocab_size": 50,
        "n_layer": 4,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 64,
    }
    config = NanoChatConfig(**sizes, window_pattern="SL")
    ids = ids_by_rule(24, 50)
    lm = ruled_model(era, **vars(config))
    with torch.no_grad():
        ours = lm(ids)[0].double()
    slow = slow_logits(era, config, ruled_state(era, config), ids[0].tolist())
    assert (ours - torch.from_numpy(slow)).abs().max() < 1e-5


@pytest.mark.parametrize(("era", "short"), [("B", 512), ("C", 512), ("D", 384), ("E", 256)])
def test_short_windows_of_each_era(era: str, short: int) -> None:
    lm = ruled_model(era, sequence_len=1024, n_layer=5, window_pattern="SSL")
    assert lm.windows == [short, short, 1024, short, 1024]
    assert ruled_model(era, n_layer=2).windows == [64, 64]  # no pattern: all L
    assert ruled_model("A", n_layer=2).windows == [None, None]


def test_constants_of_another_era_show_at_once() -> None:
    """What "patch and hope" costs: the same tensors under softcap 20 move the logits."""
    config = NanoChatConfig(64, 300, 3, 4, 2, 64, "SL")
    state, ids = ruled_state("C", config), ids_by_rule(40)
    fields = dict(vars(config))
    right = from_state_dict(state, fields, softcap=15.0)(ids)
    wrong = from_state_dict(state, fields, softcap=20.0)(ids)
    assert (right - wrong).abs().max() > 0.01
