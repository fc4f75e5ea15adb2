"""Adapters: text untouched to the bit, merged weights, gradients, dropout, and the cache.

.venv/bin/python -m pytest tests/omni/nanochat/test_lora.py
"""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nanochat_kit import ERA_NAMES, adapters, inputs, models, part, some_targets
from nanochat_reference import ruled_model
from torch import Tensor, nn

from omni.errors import OmniError
from omni.nanochat import NanoChat, from_state_dict
from omni.nanochat.build import cast_matrices
from omni.nanochat.config import config_dict
from omni.nanochat.generate import generate
from omni.nanochat.layers import Worn
from omni.nanochat.lora import TARGETS, Lora, merged_state
from omni.nanochat.memory import depth_config

HEARD = torch.tensor([True, False, True])


def bits(x: Tensor) -> Tensor:
    """An fp32 tensor's bits: zeros of both signs are told apart."""
    return x.detach().view(torch.int32)


def rebuilt(lm: NanoChat, state: dict[str, Tensor]) -> NanoChat:
    """A model of the same era from other weights."""
    era = {"softcap": lm.era.softcap, "rope_bf16": lm.era.rope_bf16}
    return from_state_dict(state, config_dict(lm.config), **era)


class Beside(nn.Module):
    """The formula as it is written, for one matrix: y = Wx + (alpha/r) B A x."""

    def __init__(self, frozen: nn.Linear, a: Tensor, b: Tensor, factor: float) -> None:
        super().__init__()
        self.weight, self.factor = frozen.weight, factor
        self.a, self.b = nn.Parameter(a.clone()), nn.Parameter(b.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.factor * (x @ self.a.T @ self.b.T)


def plainly(lm: NanoChat, lora: Lora) -> NanoChat:
    """The same model with its matrices replaced, one by one; their A and B are parameters of it."""
    plain = copy.deepcopy(lm.wear(None))
    for i, block in enumerate(plain.transformer["h"]):  # type: ignore[arg-type]
        for name, (a, b) in lora.pairs(i).items():
            room, _, matrix = name.partition(".")
            module = getattr(block, room)
            found = Beside(getattr(module, matrix), a.detach(), b.detach(), lora.factor)
            setattr(module, matrix, found)
    return plain


# -- rows of text alone ------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERA_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_text_rows_are_the_same_to_the_bit_with_adapters_and_without(
    era: str, dtype: torch.dtype
) -> None:
    lm = cast_matrices(ruled_model(era, n_layer=4, window_pattern="SL", sequence_len=12), dtype)
    rows, ve = inputs(lm, [20, 20, 20])
    bare = lm.forward_embeds(rows, ve)
    assert torch.equal(lm.forward_embeds(rows, ve, heard=HEARD), bare)  # nothing to wear
    lm.wear(adapters(lm))
    for none in (False, torch.zeros(3, dtype=torch.bool)):
        assert torch.equal(bits(lm.forward_embeds(rows, ve, heard=none)), bits(bare))
    mixed = lm.forward_embeds(rows, ve, heard=HEARD)
    assert torch.equal(bits(mixed[1]), bits(bare[1]))
    assert ((mixed - bare)[HEARD].abs().amax((1, 2)) > 0.01).all()
    assert torch.equal(lm.forward_embeds(rows, ve, heard=True)[HEARD], mixed[HEARD])
    assert torch.equal(bits(lm.wear(None).forward_embeds(rows, ve, heard=True)), bits(bare))


@pytest.mark.parametrize("era", ERA_NAMES)
def test_ids_hear_nothing_and_the_cache_keeps_it_so(era: str) -> None:
    lm = ruled_model(era)
    ids = torch.arange(3 * 15).view(3, 15)
    bare, rows = lm(ids), lm.embed(ids)
    lm.wear(adapters(lm))
    assert torch.equal(bits(lm(ids)), bits(bare))
    for heard in (False, HEARD):
        caches = [lm.new_cache(3, 15) for _ in range(2)]
        for cut in (slice(9), slice(9, 10), slice(10, 15)):
            now = [part(t, slice(None), cut) for t in rows]
            mixed = lm.forward_embeds(*now, cache=caches[0], heard=heard)
            alone = lm.wear(None).forward_embeds(*now, cache=caches[1])
            assert torch.equal(bits(mixed[1]), bits(alone[1]))
            lm.wear(adapters(lm))


def test_training_with_dropout_leaves_text_rows_alone_too() -> None:
    lm = ruled_model("E")
    rows, ve = inputs(lm, [20, 20, 20])
    bare = lm.forward_embeds(rows, ve)
    lm.wear(adapters(lm, dropout=0.5).train())
    mixed = lm.forward_embeds(rows, ve, heard=HEARD)
    assert torch.equal(bits(mixed[1]), bits(bare[1]))
    mixed[1].sum().backward()  # a text row teaches the adapters nothing
    assert all(p.grad is None or not p.grad.any() for p in lm.lora.parameters())  # type: ignore[union-attr]


def test_the_model_is_none_the_wiser() -> None:
    lm = ruled_model("E")
    before = lm.fingerprint(), lm.exact_hash(), list(lm.state_dict()), len(list(lm.parameters()))
    lora = adapters(lm)
    assert lm.lora is None
    assert lm.wear(lora) is lm
    assert lm.lora is lora
    after = lm.fingerprint(), lm.exact_hash(), list(lm.state_dict()), len(list(lm.parameters()))
    assert after == before
    assert not any(module is lora for module in lm.modules())
    lm.freeze()
    assert lora.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in lora.parameters())
    assert lm.wear(None).lora is None


def test_at_scale_zero_it_is_the_base_model_and_scale_multiplies() -> None:
    lm = ruled_model("E")
    rows, ve = inputs(lm, [12])
    bare = lm.forward_embeds(rows, ve, heard=True)
    lora = adapters(lm, alpha=4.0)
    lm.wear(lora)
    lora.scale = 0.0
    assert torch.equal(bits(lm.forward_embeds(rows, ve, heard=True)), bits(bare))
    lora.scale = 1.5
    louder = lm.forward_embeds(rows, ve, heard=True)
    same = lm.wear(adapters(lm, alpha=6.0)).forward_embeds(rows, ve, heard=True)
    assert torch.equal(louder, same)


# -- what they compute -------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    models(),
    some_targets(),
    st.integers(1, 8),
    st.floats(0.25, 2),
    st.sampled_from([0.5, 1.0, 1.5]),
)
def test_merged_weights_are_the_model_that_wears_them(
    lm: NanoChat, targets: list[str], rank: int, strength: float, scale: float
) -> None:
    rows, ve = inputs(lm, [14, 14])
    lora = adapters(lm, rank, strength * rank, targets=targets)
    lora.scale = scale
    state = merged_state(lm, lora)
    changed = {k for k, t in lm.state_dict().items() if not torch.equal(t, state[k])}
    wanted = {f"transformer.h.{i}.{t}.weight" for i in range(lm.config.n_layer) for t in targets}
    assert changed == wanted
    assert list(state) == list(lm.state_dict())
    worn = lm.wear(lora).forward_embeds(rows, ve, heard=True)
    assert (worn - lm.forward_embeds(rows, ve)).abs().max() > 1e-3
    assert (rebuilt(lm, state).forward_embeds(rows, ve) - worn).abs().max() < 2e-4


@pytest.mark.parametrize("era", ERA_NAMES)
def test_gradients_are_those_of_the_formula_as_it_is_written(era: str) -> None:
    lm = ruled_model(era, n_layer=2)
    lora = adapters(lm)
    plain = plainly(lm, lora)
    rows, ve = inputs(lm, [11, 11])
    mine, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    lm.wear(lora).forward_embeds(mine, ve, heard=True).square().mean().backward()
    plain.forward_embeds(theirs, ve).square().mean().backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)  # type: ignore[arg-type]
    found = {key.removeprefix("transformer."): p.grad for key, p in plain.named_parameters()}
    for key, p in lora.named_parameters():
        want = found[key[:-1] + key[-1].lower()]
        assert want is not None
        assert want.abs().max() > 1e-6
        assert torch.allclose(p.grad, want, rtol=1e-4, atol=1e-7)  # type: ignore[arg-type]
    assert all(p.grad is None for p in lm.parameters())


@pytest.mark.parametrize("heard", [True, torch.tensor([True, False])])
def test_gradients_are_finite_differences(heard: Tensor | bool) -> None:
    lm = ruled_model("E", n_layer=2).double()
    lora = adapters(lm).double()
    lm.wear(lora)
    rows, ve = (t.double() for t in inputs(lm, [9, 9]))  # type: ignore[union-attr]

    def loss() -> Tensor:
        x = lm.hidden_states(rows, ve, heard=heard, final_only=True)[-1]
        return x.square().mean() + x[:, -1].sin().mean()

    loss().backward()
    rng = torch.Generator().manual_seed(5)
    for key, p in lora.named_parameters():
        way = torch.randn(p.shape, generator=rng, dtype=torch.double)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                p += step * way
                ends.append(loss())
                p -= step * way
        slope = (ends[0] - ends[1]) / 2e-5
        assert slope == pytest.approx((p.grad * way).sum().item(), rel=1e-5, abs=1e-9), key


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masters_in_fp32_learn_from_an_lm_in_halves(dtype: torch.dtype) -> None:
    grads = []
    for half in (False, True):
        lm = cast_matrices(ruled_model("E"), dtype if half else torch.float32)
        lora = adapters(lm)
        rows, ve = inputs(lm, [12, 12, 12])
        logits = lm.wear(lora).forward_embeds(rows, ve, heard=HEARD)
        torch.nn.functional.cross_entropy(logits[HEARD].flatten(0, 1), torch.arange(24)).backward()
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in lora.parameters())  # type: ignore[union-attr]
        grads.append(torch.cat([p.grad.flatten() for p in lora.parameters()]))  # type: ignore[union-attr]
    exact, rough = grads
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.98


def test_a_gradient_reaches_adapters_below_soft_rows_that_ask_for_none() -> None:
    """The projector frozen, with checkpointing and without."""
    lm = ruled_model("E")
    for flag in (False, True):
        lm.activation_checkpointing = flag
        lora = Lora(lm.config, 4, 8.0)
        lm.wear(lora).forward_embeds(*inputs(lm, [12]), heard=True).square().mean().backward()
        for key, p in lora.named_parameters():
            # B is zero at first, so A has no gradient yet, and B has all of it.
            assert bool(p.grad.any()) == key.endswith(".B"), key  # type: ignore[union-attr]


@pytest.mark.parametrize("heard", [True, HEARD])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_gradients_are_the_plain_ones(heard: Tensor | bool, dropout: float) -> None:
    lm = ruled_model("E", n_layer=4, window_pattern="SL", sequence_len=12)
    found = []
    for flag in (False, True):
        lm.activation_checkpointing = flag
        lora = adapters(lm, dropout=dropout).train()
        rows, ve = inputs(lm, [30, 30, 30])
        torch.manual_seed(3)
        lm.wear(lora).forward_embeds(
            rows.requires_grad_(), ve, heard=heard
        ).square().mean().backward()
        found.append([rows.grad, *(p.grad for p in lora.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# -- dropout -----------------------------------------------------------------------------------


def test_dropout_is_a_function_of_the_seed_in_training_and_off_otherwise() -> None:
    lm = ruled_model("C")
    rows, ve = inputs(lm, [12])
    lm.wear(adapters(lm))
    sure = lm.forward_embeds(rows, ve, heard=True)
    lora = adapters(lm, dropout=0.4)
    lm.wear(lora)

    def passed(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return lm.forward_embeds(rows, ve, heard=True)

    lora.eval()
    assert torch.equal(passed(1), sure)
    lora.train()
    assert not lm.training
    assert torch.equal(passed(1), passed(1))
    assert not torch.equal(passed(1), passed(2))
    assert not torch.equal(passed(1), sure)


def test_dropout_hides_inputs_and_keeps_the_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8, generator=rng), torch.randn(5, 2, generator=rng)
    x, y = torch.randn(1, 1, 8, generator=rng), torch.randn(1, 1, 5, generator=rng)
    worn = Worn({"attn.c_q": (a, b)}, 0.5, 0.25, None)
    torch.manual_seed(0)
    many = worn.drop(x.expand(1, 40_000, 8), "attn.c_q", "attn.c_k")
    assert many.unique().numel() == 9
    assert ((many - x / 0.75).abs() < 1e-6).logical_or(many == 0).all()
    assert (many == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)
    assert worn.drop(x, "mlp.c_fc") is x  # nobody there to hide it from
    out = worn.add("attn.c_q", y.expand(1, 40_000, 5), many).mean(1)
    want = y + 0.5 * (x @ a.T @ b.T)
    assert torch.allclose(out, want[0], atol=0.02)
    assert worn.add("attn.c_k", y, x) is y


# -- decoding ----------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(models(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans())
def test_prefill_and_decode_with_a_cache_are_the_full_pass(
    lm: NanoChat, chunks: list[int], mixed: bool
) -> None:
    rows, ve = inputs(lm, [sum(chunks)] * 3)
    heard = HEARD if mixed else True
    lm.wear(adapters(lm))
    whole = lm.forward_embeds(rows, ve, heard=heard)
    cache, at = lm.new_cache(3, sum(chunks)), 0
    for n in chunks:
        cut = slice(at, at + n)
        got = lm.forward_embeds(rows[:, cut], part(ve, slice(None), cut), cache=cache, heard=heard)
        assert (got - whole[:, cut]).abs().max() < 2e-5
        at += n


@pytest.mark.parametrize("era", ERA_NAMES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_decodes_as_each_row_alone_heard_or_not(era: str, temperature: float) -> None:
    lm = ruled_model(era)
    lengths, caps = [9, 4, 7], [3, 12, 8]  # rows leave the batch one by one
    rows, ve = inputs(lm, lengths)
    lm.wear(adapters(lm))

    def say(at: list[int], heard: Tensor | bool) -> list[list[int]]:
        longest = max(lengths[i] for i in at)
        return generate(
            lm, rows[at, :longest], part(ve, at, slice(longest)), torch.tensor(lengths)[at], set(),
            [caps[i] for i in at], temperature, seed=4, heard=heard,
        )  # fmt: skip

    heard, unheard = say([0, 1, 2], True), say([0, 1, 2], False)
    assert all(a != b for a, b in zip(heard, unheard, strict=True))
    assert say([0, 1, 2], HEARD) == [heard[0], unheard[1], heard[2]]
    assert [say([i], True)[0] for i in range(3)] == heard
    lm.wear(None)
    assert say([0, 1, 2], HEARD) == unheard


# -- made --------------------------------------------------------------------------------------


def test_a_is_normal_with_the_inputs_unit_scale_and_b_is_zero() -> None:
    config = depth_config(4)
    lora = Lora(config, 16, 32.0, seed=7)
    for key, p in lora.named_parameters():
        if key.endswith(".B"):
            assert not p.any()
        else:
            assert p.std().item() * p.shape[1] ** 0.5 == pytest.approx(1, abs=0.05), key
    again, other = Lora(config, 16, 32.0, seed=7), Lora(config, 16, 32.0, seed=8)
    assert torch.equal(lora.h[0].attn.c_q.A, again.h[0].attn.c_q.A)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(lora.h[0].attn.c_q.A, other.h[0].attn.c_q.A)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(lora.h[0].attn.c_q.A, lora.h[1].attn.c_q.A)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize(("depth", "millions"), [(12, 2.65), (20, 7.37), (26, 12.46)])
def test_sixteen_ranks_on_all_six_matrices(depth: int, millions: float) -> None:
    with torch.device("meta"):
        lora = Lora(depth_config(depth), 16, 32.0)
    assert sum(p.numel() for p in lora.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_names_are_those_of_the_matrices() -> None:
    lm = ruled_model("A", n_layer=2)
    names = [key for key, _ in Lora(lm.config, 2, 4, targets=["mlp.c_fc", "attn.c_v"]).named_parameters()]  # fmt: skip
    assert names == [
        f"h.{i}.{t}.{m}" for i in (0, 1) for t in ("attn.c_v", "mlp.c_fc") for m in "AB"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "adapters of rank 0: from 1 to 65,536"),
        ({"alpha": 0.0}, "adapters with alpha 0: give a number above 0"),
        ({"alpha": float("nan")}, "adapters with alpha nan"),
        ({"dropout": 1.0}, "adapters with dropout 1: from 0 to below 1"),
        ({"targets": []}, "adapters on nothing: each of attn.c_q, .* at most once"),
        ({"targets": ["attn.c_q", "attn.c_q"]}, "adapters on attn.c_q, attn.c_q"),
        ({"targets": ["lm_head"]}, "adapters on lm_head"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, object], said: str) -> None:
    lm = ruled_model("A")
    with pytest.raises(OmniError, match=said):
        Lora(lm.config, **{"rank": 4, "alpha": 8.0, **options})  # type: ignore[arg-type]


def test_another_models_adapters_are_not_worn() -> None:
    lm, wider = ruled_model("E"), ruled_model("E", n_embd=128)
    with pytest.raises(OmniError, match=r"h\.0\.attn\.c_k\.A is \(3, 128\) .*, expected \(3, 64\)"):
        lm.wear(adapters(wider))
    with pytest.raises(OmniError, match=r"h\.3\.attn\.c_k\.A is .*, which this LM has not"):
        lm.wear(adapters(ruled_model("E", n_layer=4)))
    assert lm.lora is None
    assert set(TARGETS) == set(Lora(lm.config, 1, 1).targets)
