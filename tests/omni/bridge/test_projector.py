"""Every projector: shapes, its own output length, gradients, and no leak from padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import tiny_lm

from omni.bridge.projector import AUDIO_VE, PROJECTORS, Projector, build_projector
from omni.errors import OmniError
from omni.nanochat.layers import norm


def make(name: str = "mlp", **kwargs: object) -> Projector:
    torch.manual_seed(0)
    sizes = {"d_in": 12, "n_embd": 16, "n_ve": 2, "kv_dim": 8, "hidden": 24, "stack": 4}
    return build_projector(name, **{**sizes, **kwargs})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROJECTORS)
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 23), min_size=1, max_size=4), stack=st.integers(1, 5))
def test_output_length_is_what_comes_out(name: str, lengths: list[int], stack: int) -> None:
    projector = make(name, stack=stack)
    soft = projector(torch.randn(len(lengths), max(lengths), 12), torch.tensor(lengths))
    assert soft.lengths.tolist() == [projector.output_length(n) for n in lengths]
    assert soft.rows.shape == (len(lengths), projector.output_length(max(lengths)), 16)
    assert soft.ve_rows.shape == (*soft.rows.shape[:2], 2, 8)


@pytest.mark.parametrize("name", PROJECTORS)
def test_padding_changes_nothing(name: str) -> None:
    projector = make(name)
    torch.nn.init.normal_(projector.ve_head.weight)
    x = torch.randn(1, 10, 12)
    alone = projector(x, torch.tensor([10]))
    padded = projector(torch.cat([x, torch.full((1, 9, 12), 7.0)], 1), torch.tensor([10]))
    n = projector.output_length(10)
    torch.testing.assert_close(padded.rows[:, :n], alone.rows)
    torch.testing.assert_close(padded.ve_rows[:, :n], alone.ve_rows)


@pytest.mark.parametrize("name", PROJECTORS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    projector = make(name, n_layers_in=3)
    torch.nn.init.normal_(projector.ve_head.weight)
    soft = projector(torch.randn(2, 3, 8, 12), torch.tensor([8, 5]))
    (soft.rows.square().sum() + soft.ve_rows.square().sum()).backward()
    for key, p in projector.named_parameters():
        assert p.dtype == torch.float32
        assert p.grad is not None, key
        assert p.grad.abs().max() > 0, key


def test_value_head_starts_at_zero_and_row_head_does_not() -> None:
    soft = make()(torch.randn(2, 8, 12), torch.tensor([8, 8]))
    assert soft.ve_rows.abs().max() == 0
    assert soft.rows.std() > 0.05


@pytest.mark.parametrize("audio_ve", AUDIO_VE)
def test_audio_ve(audio_ve: str) -> None:
    projector = make(audio_ve=audio_ve)
    soft = projector(torch.randn(1, 8, 12), torch.tensor([8]))
    if audio_ve == "zero":
        assert soft.ve_rows is None
        return
    assert soft.ve_rows.shape == (1, 2, 2, 8)
    torch.nn.init.normal_(projector.ve_head.weight)
    one, two = projector(torch.randn(1, 8, 12), torch.tensor([8])).ve_rows.unbind(2)
    assert torch.equal(one, two) == (audio_ve == "shared")


def test_no_value_head_for_an_lm_without_value_embeddings() -> None:
    assert make(n_ve=0).ve_head is None


def test_layer_mix_starts_as_the_mean() -> None:
    mixed, plain = make(n_layers_in=3), make()
    plain.load_state_dict(mixed.state_dict() | {"mix": torch.zeros(1)})
    x = torch.randn(1, 3, 8, 12)
    lengths = torch.tensor([8])
    torch.testing.assert_close(mixed(x, lengths).rows, plain(x.mean(1), lengths).rows)


def test_config_gives_the_same_module_back() -> None:
    first = make("conv", audio_ve="shared")
    again = build_projector(**first.config)
    again.load_state_dict(first.state_dict())
    x, lengths = torch.randn(1, 9, 12), torch.tensor([9])
    assert torch.equal(again(x, lengths).rows, first(x, lengths).rows)


def test_wrong_features_and_wrong_names_are_told() -> None:
    with pytest.raises(OmniError, match=r"1 layer.*width 13.*takes 1 and 12"):
        make()(torch.randn(1, 8, 13), torch.tensor([8]))
    with pytest.raises(OmniError, match="mlp, conv, linear"):
        make("mpl")
    with pytest.raises(OmniError, match="learned, shared, zero"):
        make(audio_ve="none")


def test_a_norm_after_the_row_head_would_change_nothing() -> None:
    """The LM's own norm follows: norm(norm(x)) = norm(x), and so for the gradient."""
    lm = tiny_lm()
    rows = torch.randn(2, 6, 64)
    found = []
    for wrap in (lambda x: x, norm):
        x = rows.clone().requires_grad_()
        logits = lm.forward_embeds(wrap(x))
        logits.square().sum().backward()
        found.append((logits.detach(), x.grad))
    for plain, normed in zip(*found, strict=True):
        torch.testing.assert_close(plain, normed, rtol=1e-4, atol=1e-4)
