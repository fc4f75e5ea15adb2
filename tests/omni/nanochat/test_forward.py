"""The forward pass against itself: cached, chunked, batched, spliced, and what gradients reach."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nanochat_kit import ERA_NAMES, inputs, models, part
from nanochat_reference import ids_by_rule, ruled_model
from training_kit import chat_tokenizer

from omni.bridge.projector import build_projector
from omni.bridge.prompt import build_batch
from omni.bridge.turns import choose_template
from omni.errors import OmniError
from omni.nanochat import NanoChat, NanoChatConfig, random_init
from omni.nanochat.build import cast_matrices


@settings(max_examples=20, deadline=None)
@given(models(), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_prefill_in_one_call_in_chunks_and_without_cache_agree(
    lm: NanoChat, chunks: list[int]
) -> None:
    T = sum(chunks)
    rows, ve = inputs(lm, [T, T])
    whole = lm.forward_embeds(rows, ve)
    cache = lm.new_cache(2, T)
    assert (lm.forward_embeds(rows, ve, cache=cache) - whole).abs().max() < 1e-5
    assert cache.lengths.tolist() == [T, T]
    cache, at = lm.new_cache(2, T + 3), 0
    for n in chunks:
        piece = slice(at, at + n)
        got = lm.forward_embeds(rows[:, piece], part(ve, slice(None), piece), cache=cache)
        assert (got - whole[:, piece]).abs().max() < 1e-5
        at += n


@settings(max_examples=20, deadline=None)
@given(models(), st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(0, 4))
def test_a_batch_of_unequal_lengths_equals_each_row_alone(
    lm: NanoChat, lengths: list[int], more: int
) -> None:
    rows, ve = inputs(lm, lengths)
    valid = torch.tensor(lengths)
    cache = lm.new_cache(len(lengths), max(lengths) + more)
    together = lm.forward_embeds(rows, ve, cache=cache, lengths=valid)
    ids = ids_by_rule(more * len(lengths), lm.config.vocab_size).view(len(lengths), more)
    steps = [lm.forward_embeds(*lm.embed(ids[:, [j]]), cache=cache)[:, 0] for j in range(more)]
    for i, n in enumerate(lengths):
        alone_rows, alone_ve = rows[[i], :n], part(ve, [i], slice(n))
        assert (lm.forward_embeds(alone_rows, alone_ve) - together[[i], :n]).abs().max() < 1e-5
        token_rows, token_ve = lm.embed(ids[[i]])
        full_ve = None if ve is None else torch.cat([alone_ve, token_ve], 1)  # type: ignore[list-item]
        full = lm.forward_embeds(torch.cat([alone_rows, token_rows], 1), full_ve)
        for j, step in enumerate(steps):
            assert (full[0, n + j] - step[i]).abs().max() < 1e-5


@settings(max_examples=15, deadline=None)
@given(models(), st.integers(1, 40))
def test_ids_are_their_embeddings_and_positions_pick_rows(lm: NanoChat, T: int) -> None:
    ids = ids_by_rule(2 * T, lm.config.vocab_size).view(2, T)
    rows, ve = lm.embed(ids)
    logits = lm(ids)
    assert logits.shape == (2, T, lm.config.vocab_size)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, lm.forward_embeds(rows, ve))
    mask = torch.rand(2, T, generator=torch.Generator().manual_seed(T)) < 0.4
    assert (lm.forward_embeds(rows, ve, positions=mask) - logits[mask]).abs().sum() < 1e-3
    # Nothing later is seen: changing the last row leaves all others alone.
    other = rows.clone()
    other[:, -1] = 1.0
    assert torch.allclose(lm.forward_embeds(other, ve)[:, :-1], logits[:, :-1], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(models(), st.integers(2, 20))
def test_rows_enter_at_unit_scale(lm: NanoChat, T: int) -> None:
    """The LM's own norm follows the splice: a row's length says nothing."""
    rows, ve = inputs(lm, [T])
    assert torch.allclose(
        lm.forward_embeds(rows * 7, ve), lm.forward_embeds(rows, ve), atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("era", ERA_NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_reaches_soft_rows_and_nothing_else(era: str, checkpointing: bool) -> None:
    lm = ruled_model(era, n_layer=4, window_pattern="SL", sequence_len=12)
    before = lm.fingerprint()
    lm.activation_checkpointing = checkpointing
    rows, ve = inputs(lm, [20, 20])
    rows.requires_grad_()
    if ve is not None:
        ve.requires_grad_()
    keep = torch.zeros(2, 20, dtype=torch.bool)
    keep[:, -3:] = True
    lm.forward_embeds(rows, ve, positions=keep).square().mean().backward()
    assert rows.grad is not None
    assert (rows.grad[:, :17].abs().sum(-1) > 0).all()
    if ve is not None:
        # Zero rows too get a gradient, so a zero-initialised head can start to learn.
        assert ve.grad is not None
        assert (ve.grad[:, :17].abs().sum((-1, -2)) > 0).all()
    assert all(p.grad is None and not p.requires_grad for p in lm.parameters())
    assert not lm.training
    assert lm.fingerprint() == before


@pytest.mark.parametrize("era", ERA_NAMES)
def test_every_projector_parameter_learns_through_the_frozen_lm(era: str) -> None:
    tok = chat_tokenizer()
    lm = ruled_model(era, vocab_size=tok.vocab_size)
    torch.manual_seed(0)
    sizes = {"d_in": 16, "n_embd": 64, "n_ve": lm.n_ve, "kv_dim": lm.kv_dim, "hidden": 32}
    projector = build_projector(**sizes, n_layers_in=2)  # type: ignore[arg-type]
    soft = projector(torch.randn(2, 2, 21, 16), torch.tensor([21, 9]))
    batch = build_batch(lm, tok, soft, ["one", "another"], choose_template({"kind": "sft"}))
    logits = lm.forward_embeds(batch.rows, batch.ve_rows, positions=batch.positions)
    torch.nn.functional.cross_entropy(logits, batch.targets[batch.positions]).backward()
    silent = [k for k, p in projector.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(p.grad is None for p in lm.parameters())


def test_checkpointing_changes_no_gradient() -> None:
    lm = ruled_model("E", n_layer=4, window_pattern="SL")
    grads = []
    for flag in (False, True):
        lm.activation_checkpointing = flag
        rows, ve = inputs(lm, [30])
        lm.forward_embeds(rows.requires_grad_(), ve).square().mean().backward()
        assert rows.grad is not None
        grads.append(rows.grad)
    assert torch.equal(*grads)


def test_zero_value_rows_are_no_value_rows() -> None:
    lm = ruled_model("E")
    rows, ve = inputs(lm, [10])
    assert ve is not None
    nothing = lm.forward_embeds(rows, None)
    assert torch.equal(lm.forward_embeds(rows, torch.zeros_like(ve)), nothing)
    assert (lm.forward_embeds(rows, ve) - nothing).abs().max() > 1e-3


@pytest.mark.parametrize("era", ERA_NAMES)
def test_hidden_states_end_in_the_logits(era: str) -> None:
    lm = ruled_model(era, n_layer=4)
    rows, ve = inputs(lm, [10])
    states = lm.hidden_states(rows, ve)
    assert len(states) == 1 + 4 + 1
    assert all(s.shape == (1, 10, 64) for s in states)
    assert torch.equal(lm.read_out(states[-1]), lm.forward_embeds(rows, ve))


def test_a_row_beyond_the_rotary_table_is_refused() -> None:
    lm = ruled_model("E", sequence_len=4)
    lm.forward_embeds(torch.ones(1, 40, 64))
    with pytest.raises(OmniError, match="a row of 41 positions; the rotary table ends at 40"):
        lm.forward_embeds(torch.ones(1, 41, 64))
    with pytest.raises(OmniError, match="room for 5 positions, 6 are needed"):
        lm.forward_embeds(torch.ones(1, 6, 64), cache=lm.new_cache(1, 5))


@pytest.mark.parametrize("era", ERA_NAMES)
def test_bf16_matrices_keep_fp32_lambdas_and_stay_near(era: str) -> None:
    exact, ids = ruled_model(era), ids_by_rule(40)
    rough = cast_matrices(ruled_model(era), torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert {p.dtype for p in rough.parameters() if p.ndim == 1} <= {torch.float32}
    logits = rough(ids)
    assert logits.dtype == torch.float32
    assert (logits - exact(ids)).abs().mean() < 0.03
    assert rough.fingerprint() == exact.fingerprint()


def test_fingerprint_sees_one_weight() -> None:
    lm = ruled_model("E")
    before = lm.fingerprint()
    lm.lm_head.weight.data[3, 5] += 0.01
    assert lm.fingerprint() != before


def test_random_init_has_upstreams_proportions() -> None:
    lm = random_init(NanoChatConfig(512, 32768, 4, 2, 2, 256, "L"), "E", seed=3)
    assert abs(sum(p.numel() for p in lm.parameters()) / 1e6 - 36.7) < 0.05
    assert abs(lm.transformer["wte"].weight.std().item() - 0.8) < 0.01  # type: ignore[union-attr]
    assert lm.lm_head.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert lm.resid_lambdas.tolist() == pytest.approx([1.15, 1.1167, 1.0833, 1.05], abs=1e-3)
    assert lm.x0_lambdas.tolist() == pytest.approx([0.2, 0.15, 0.1, 0.05], abs=1e-3)
    assert all(p.requires_grad for p in lm.parameters())
    again = random_init(lm.config, "E", seed=3)
    assert again.fingerprint() == lm.fingerprint()
    assert random_init(lm.config, "E", seed=4).fingerprint() != lm.fingerprint()
