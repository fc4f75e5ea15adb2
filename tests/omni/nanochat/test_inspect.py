"""omni-lm inspect."""

import json
from pathlib import Path

import pytest
import torch
from nanochat_kit import CONFIG, write
from nanochat_reference import ruled_state
from places import ROOT
from training_kit import chat_tokenizer

from cli.lm import main
from omni.nanochat import NanoChatConfig, random_init
from omni.nanochat.inspection import inspect_checkpoint, trained_specials

UPSTREAM = ROOT / "tests" / "data" / "upstream"


def test_a_base_checkpoint_has_no_trained_chat_tokens() -> None:
    facts = inspect_checkpoint(UPSTREAM)
    assert (facts["era"], facts["kind"], facts["n_layer"]) == ("E", "base", 3)
    assert not any(seen["input"] or seen["output"] for name, seen in facts["specials"].items()
                   if name != "bos")  # fmt: skip


def test_a_token_that_is_read_or_asked_for_looks_trained() -> None:
    tok = chat_tokenizer()
    lm = random_init(NanoChatConfig(64, tok.vocab_size, 4, 2, 2, 128, "L"), "E")
    ids = torch.tensor([[tok.special("bos"), 5, 6, tok.special("user_start"), 7, 8, 9]])
    targets = torch.tensor([5, 6, 7, 8, tok.special("assistant_end"), 9, 5])
    adam = torch.optim.AdamW(lm.parameters(), lr=0.03)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(lm(ids)[0], targets)
        adam.zero_grad()
        loss.backward()
        adam.step()
    seen = trained_specials(lm, tok)
    assert [name for name, s in seen.items() if s["input"]] == ["bos", "user_start"]
    assert [name for name, s in seen.items() if s["output"]] == ["assistant_end"]
    # Weights that were never trained at all: nothing agrees, so nothing is claimed.
    fresh = trained_specials(random_init(lm.config, "E"), tok)
    assert {s["output"] for s in fresh.values()} == {None}
    assert not any(s["input"] for s in trained_specials(random_init(lm.config, "E"), tok).values())


def test_the_command_in_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, era="B", val_bpb=1.0, user_config={"depth": 3})
    assert main(["inspect", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for part in ("(base, step 7)", "B: it has lambdas but no value embeddings", "32 64 64", "GB"):
        assert part in text
    assert main(["inspect", str(tmp_path), "--json", "--batch", "3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["memory_batch"] == 3
    assert facts["parameters"] == sum(t.numel() for t in ruled_state("B", CONFIG).values())
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("error: no such nanochat checkpoint")


def test_an_ambiguous_checkpoint_warns_once_and_names_the_overrides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, era="C")
    assert main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count("warning: eras C and C20") == 1
    assert main(["inspect", str(tmp_path), "--softcap", "20", "--rope-bf16", "no"]) == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert "softcap 20" in said.out
