"""The figures of a run: each control does what its name says, and nothing depends on batching."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.projector import Projector, build_projector
from omni.bridge.turns import choose_template
from omni.errors import OmniError
from omni.evaluation import evaluate as ev
from omni.evaluation.verdict import verdict

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})


def projector_for(lm: object) -> Projector:
    torch.manual_seed(0)
    return build_projector(
        d_in=16, n_embd=lm.config.n_embd, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32
    )


@pytest.fixture(scope="module")
def figures() -> dict:
    lm = tiny_lm()
    return ev.evaluate(lm, TOK, projector_for(lm), speech(7), SFT, n_examples=3)


def test_every_figure_is_there_and_sane(figures: dict) -> None:
    assert figures["n"] == 7
    assert figures["n_decoded"] == 7
    assert figures["n_tokens"] == sum(len(s.meta["text_norm"]) + 1 for s in speech(7))
    for name in ("shuffled", "zero", "mean", "none"):
        gap = figures[f"ce_{name}"] - figures["ce"]
        assert figures[f"gap_{name}"] == pytest.approx(gap, abs=1e-9)
    assert figures["wer"] == pytest.approx(sum(figures[f"wer_{part}"] for part in "sdi"))
    for name in ("ce", "gap_shuffled", "token_accuracy", "wer"):
        low, high = figures["intervals"][name]
        assert low <= figures[name] <= high
    assert len(figures["examples"]) == 3
    assert [u["id"] for u in figures["utterances"]] == sorted(s.meta["id"] for s in speech(7))


def test_ce_is_the_mean_over_target_tokens(figures: dict) -> None:
    weighted = sum(u["ce"] * u["n_tokens"] for u in figures["utterances"])
    assert figures["ce"] == pytest.approx(weighted / figures["n_tokens"])
    text_bytes = sum(len(s.meta["text_norm"]) for s in speech(7))
    assert figures["bits_per_byte"] == pytest.approx(weighted / np.log(2) / text_bytes)


def test_figures_don_t_depend_on_batch_size_or_order(figures: dict) -> None:
    lm = tiny_lm()
    again = ev.evaluate(lm, TOK, projector_for(lm), speech(7)[::-1], SFT, batch_size=2)
    for name, value in figures.items():
        if isinstance(value, float):
            assert again[name] == pytest.approx(value, abs=1e-4), name
    for a, b in zip(again["utterances"], figures["utterances"], strict=True):
        assert a["hypothesis"] == b["hypothesis"]


def test_a_projector_in_training_stays_so_and_keeps_no_gradient() -> None:
    lm = tiny_lm()
    projector = projector_for(lm).train()
    ev.evaluate(lm, TOK, projector, speech(3), SFT, decode_limit=1)
    assert projector.training
    assert all(p.grad is None for p in projector.parameters())


def test_no_audio_is_the_lm_alone() -> None:
    """The row without audio is scored by hand, with no help of the functions under test."""
    lm = tiny_lm()
    sample = speech(1)[0]
    got = ev.evaluate(lm, TOK, projector_for(lm), [sample], SFT, decode_limit=0)
    s, text = TOK.special, TOK.encode(sample.meta["text_norm"])
    head = [s("bos"), s("user_start"), *TOK.encode(SFT.prompt), s("user_end"), s("assistant_start")]
    ids = torch.tensor([head + text + [s("assistant_end")]])
    logits = lm(ids)[0, len(head) - 1 : -1]
    want = torch.nn.functional.cross_entropy(logits, ids[0, len(head) :])
    assert got["ce_none"] == pytest.approx(want.item(), abs=1e-5)
    assert "ce_shuffled" not in got
    assert "wer" not in got


def test_decode_limit_spreads_over_the_lengths() -> None:
    lm = tiny_lm()
    got = ev.evaluate(lm, TOK, projector_for(lm), speech(9), SFT, decode_limit=3)
    assert got["n_decoded"] == 3
    assert len([u for u in got["utterances"] if "hypothesis" in u]) == 3


def test_nothing_to_evaluate_is_an_error() -> None:
    lm = tiny_lm()
    with pytest.raises(OmniError, match="no utterances"):
        ev.evaluate(lm, TOK, projector_for(lm), [], SFT)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40))
def test_derangement_gives_everybody_another_text(keys: list[str]) -> None:
    to = ev.derangement(keys)
    assert sorted(to) == list(range(len(keys)))
    commonest = max(keys.count(k) for k in keys)
    wrong = sum(keys[i] == keys[to[i]] for i in range(len(keys)))
    if commonest * 2 <= len(keys):
        assert wrong == 0
    else:
        assert wrong == 2 * commonest - len(keys)


def test_derangement_stays_close_in_length() -> None:
    to = ev.derangement([str(i) for i in range(101)])
    assert max(abs(i - j) for i, j in enumerate(to)) <= 2


@pytest.mark.parametrize(
    ("gap", "low", "accuracy", "wer", "words"),
    [
        (0.01, -0.02, 0.3, 1.0, "does not listen"),
        (0.5, -0.1, 0.3, 1.0, "does not listen"),
        (0.6, 0.4, 0.45, 0.95, "still on the plateau"),
        (4.0, 3.5, 0.98, 0.03, "crossed the cliff"),
    ],
)
def test_verdict(gap: float, low: float, accuracy: float, wer: float, words: str) -> None:
    figures = {"gap_shuffled": gap, "intervals": {"gap_shuffled": (low, gap + 0.1)}}
    figures |= {"token_accuracy": accuracy, "wer": wer, "ce": 2.0}
    assert words in verdict(figures)
    assert ("Overfit" in verdict(figures, train_loss=0.3)) == ("does not" not in words)


def test_verdict_without_controls() -> None:
    assert "can't tell" in verdict({"ce": 1.0})


def test_noise_has_no_shuffled_control() -> None:
    samples = speech(6)
    for sample in samples:
        sample.meta["text_norm"] = ""
    lm = tiny_lm()
    figures = ev.evaluate(lm, TOK, projector_for(lm), samples, SFT)
    assert not {"gap_shuffled", "wer", "bits_per_byte"} & figures.keys()
    assert {"gap_zero", "empty_rate"} <= figures.keys()


def test_verdict_of_noise() -> None:
    figures = {"intervals": {}, "token_accuracy": 0.5, "ce": 2.0}
    assert "says nothing to 40% of it. Train on noise too" in verdict(figures | {"empty_rate": 0.4})
    assert verdict(figures | {"empty_rate": 0.95}).endswith("says nothing to 95% of it")
