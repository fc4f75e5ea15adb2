"""The row: its layout to the id, its targets, its padding, and parity of training and decoding."""

import pytest
import torch
from training_kit import chat_tokenizer, tiny_lm

from omni.bridge.projector import Soft
from omni.bridge.prompt import build_batch, build_row, collate
from omni.bridge.turns import DEFAULT_PROMPT, choose_template
from omni.errors import OmniError
from omni.nanochat.tokenizer import ByteTokenizer

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})
BASE = choose_template({"kind": "base"})


def soft(n: int, lm: object, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    C, n_ve, kv = lm.config.n_embd, lm.n_ve, lm.kv_dim
    return torch.randn(n, C, generator=g), torch.randn(n, n_ve, kv, generator=g)


def test_chat_row_is_laid_out_to_the_id() -> None:
    lm = tiny_lm()
    rows, ve = soft(3, lm)
    row = build_row(lm, TOK, rows, ve, "hi", SFT)
    s = TOK.special
    before = [s("bos"), s("user_start")]
    after = [*TOK.encode(DEFAULT_PROMPT), s("user_end"), s("assistant_start")]
    answer = [*b"hi", s("assistant_end")]
    text_rows, text_ve = lm.embed(torch.tensor([before + after + answer]))
    assert (row.audio_start, row.n_soft) == (2, 3)
    assert torch.equal(row.rows[2:5], rows)
    assert torch.equal(row.ve_rows[2:5], ve)
    assert torch.equal(torch.cat([row.rows[:2], row.rows[5:]]), text_rows[0])
    assert torch.equal(torch.cat([row.ve_rows[:2], row.ve_rows[5:]]), text_ve[0])
    n = len(before) + 3 + len(after)
    assert row.targets.tolist() == [-1] * (n - 1) + answer + [-1]


def test_base_row_has_no_other_special_than_bos() -> None:
    lm = tiny_lm()
    row = build_row(lm, ByteTokenizer(), *soft(3, lm), "hi", BASE)
    assert row.targets.tolist() == [-1, -1, -1, *b"hi", 256, -1]
    assert row.audio_start == 1


def test_template_follows_the_checkpoint_and_the_option() -> None:
    assert SFT.prompt == DEFAULT_PROMPT
    assert (BASE.kind, BASE.prompt) == ("base", "")
    assert choose_template({"kind": "rl"}, " Write.").prompt == " Write."
    assert choose_template({"kind": "mid"}).kind == "sft"


@pytest.mark.parametrize(("kind", "opening"), [("sft", ["bos", "user_start"]), ("base", ["bos"])])
def test_audio_first_moves_only_the_opening(kind: str, opening: list[str]) -> None:
    lm = tiny_lm()
    rows, ve = soft(3, lm)
    first = build_row(lm, TOK, rows, ve, "hi", choose_template({"kind": kind}, None, True))
    usual = build_row(lm, TOK, rows, ve, "hi", choose_template({"kind": kind}))
    n = len(opening)
    assert (first.audio_start, usual.audio_start) == (0, n)
    assert torch.equal(first.rows[:3], rows)
    assert torch.equal(first.rows[3 : 3 + n], usual.rows[:n])
    assert torch.equal(first.rows[3 + n :], usual.rows[3 + n :])
    assert torch.equal(first.targets, usual.targets)


def test_audio_without_value_rows_gets_zeros() -> None:
    lm = tiny_lm()
    row = build_row(lm, TOK, soft(3, lm)[0], None, "hi", SFT)
    assert row.ve_rows[2:5].abs().max() == 0
    assert row.ve_rows[:2].abs().max() > 0


def test_an_era_without_value_embeddings_has_none() -> None:
    lm = tiny_lm("A")
    assert build_row(lm, TOK, torch.randn(3, 64), None, "hi", SFT).ve_rows is None


@pytest.mark.parametrize("template", [SFT, BASE])
def test_decoding_row_is_the_training_row_up_to_the_text(template: object) -> None:
    lm = tiny_lm()
    rows, ve = soft(5, lm)
    full = build_row(lm, TOK, rows, ve, "hello", template)
    prefix = build_row(lm, TOK, rows, ve, None, template)
    n = prefix.rows.shape[0]
    assert torch.equal(full.rows[:n], prefix.rows)
    assert torch.equal(full.ve_rows[:n], prefix.ve_rows)
    assert (prefix.targets == -1).all()
    assert (full.targets[: n - 1] == -1).all()
    assert full.targets[n - 1] == ord("h")


def test_right_padding_leaves_logits_and_targets_alone() -> None:
    lm = tiny_lm()
    short = build_row(lm, TOK, *soft(2, lm), "a", SFT)
    long = build_row(lm, TOK, *soft(9, lm, 1), "longer text", SFT)
    batch = collate([short, long])
    n = short.rows.shape[0]
    assert batch.lengths.tolist() == [n, long.rows.shape[0]]
    assert (batch.targets[0, n:] == -1).all()
    alone = lm.forward_embeds(short.rows[None], short.ve_rows[None])
    both = lm.forward_embeds(batch.rows, batch.ve_rows)
    torch.testing.assert_close(both[0, :n], alone[0], atol=1e-5, rtol=0)


def test_batch_uses_only_the_valid_soft_tokens() -> None:
    lm = tiny_lm()
    rows, ve = torch.randn(2, 6, 64), torch.randn(2, 6, 1, 32)
    batch = build_batch(lm, TOK, Soft(rows, ve, torch.tensor([6, 2])), ["a", "bc"], SFT)
    one = build_row(lm, TOK, rows[1, :2], ve[1, :2], "bc", SFT)
    n = one.rows.shape[0]
    assert torch.equal(batch.rows[1, :n], one.rows)
    assert batch.positions.sum().item() == 2 + 3  # a, bc, and two ends


def test_gradient_goes_to_the_soft_rows_and_not_to_the_lm() -> None:
    lm = tiny_lm()
    rows, ve = (x.requires_grad_() for x in soft(4, lm))
    batch = collate([build_row(lm, TOK, rows, ve, "hi", SFT)])
    logits = lm.forward_embeds(batch.rows, batch.ve_rows, positions=batch.positions)
    torch.nn.functional.cross_entropy(logits, batch.targets[batch.positions]).backward()
    assert rows.grad.abs().sum(1).min() > 0
    assert ve.grad.abs().max() > 0
    assert all(p.grad is None for p in lm.parameters())


def test_a_row_beyond_the_rotary_table_names_its_utterance() -> None:
    lm = tiny_lm(sequence_len=8)
    with pytest.raises(OmniError, match=r"100 positions.*80.*utt-7"):
        build_row(lm, TOK, torch.zeros(80, 64), None, "hi", SFT, "utt-7")


def test_chat_template_needs_the_chat_specials() -> None:
    with pytest.raises(OmniError, match="user_start"):
        build_row(tiny_lm(), ByteTokenizer(), torch.zeros(2, 64), None, "hi", SFT)
