"""A batch of rows asks little of a device: few operations, whatever the batch, and no answer back.

.venv/bin/python -m pytest tests/omni/bridge/test_launches.py
"""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from training_kit import chat_tokenizer, tiny_lm

from omni.bridge.losses import token_losses
from omni.bridge.projector import Soft
from omni.bridge.prompt import build_batch
from omni.bridge.turns import Template, choose_template
from omni.nanochat.model import NanoChat

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})


def soft_batch(lm: NanoChat, counts: list[int], device: str = "cpu") -> Soft:
    g = torch.Generator().manual_seed(0)
    shape = (len(counts), max(counts))
    rows = torch.randn(*shape, lm.config.n_embd, generator=g).to(device)
    ve = torch.randn(*shape, lm.n_ve, lm.kv_dim, generator=g).to(device) if lm.n_ve else None
    return Soft(rows, ve, torch.tensor(counts).to(device))


def spliced_one_by_one(
    lm: NanoChat, soft: Soft, texts: list[str | None], template: Template
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """The same rows by the plain way: each one cut and joined by itself, then padded."""
    rows, values, targets = [], [], []
    for i, (text, n) in enumerate(zip(texts, soft.lengths.tolist(), strict=True)):
        before, after = template.before(TOK), template.after(TOK)
        answer = [] if text is None else [*TOK.encode(text), template.end(TOK)]
        own, own_ve = lm.embed(torch.tensor([[*before, *after, *answer]]))
        k = len(before)
        rows.append(torch.cat([own[0, :k], soft.rows[i, :n], own[0, k:]]))
        if own_ve is not None:
            values.append(torch.cat([own_ve[0, :k], soft.ve_rows[i, :n], own_ve[0, k:]]))
        asked = [-1] * (len(rows[-1]) - len(answer) - 1) + answer + [-1]
        targets.append(torch.tensor(asked[: len(rows[-1])]))
    ve = pad_sequence(values, batch_first=True) if values else None
    return (
        pad_sequence(rows, batch_first=True),
        ve,
        pad_sequence(targets, batch_first=True, padding_value=-1),
    )


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    texts=st.data(),
    era=st.sampled_from(["A", "C", "E"]),
    kind=st.sampled_from(["sft", "base"]),
    first=st.booleans(),
)
def test_a_batch_is_its_rows_spliced_one_by_one_to_the_bit(
    counts: list[int], texts: st.DataObject, era: str, kind: str, first: bool
) -> None:
    """Values, targets and, through the LM, the gradient at every soft row."""
    lm, template = tiny_lm(era), choose_template({"kind": kind}, None, first)
    words = st.one_of(st.none(), st.text("abc ", max_size=5))
    said = [texts.draw(words) for _ in counts]
    found: list[tuple[torch.Tensor, ...]] = []
    for whole in (True, False):
        soft = soft_batch(lm, counts)
        soft.rows.requires_grad_()
        if whole:
            batch = build_batch(lm, TOK, soft, said, template)
            rows, ve, targets = batch.rows, batch.ve_rows, batch.targets
            assert torch.equal(batch.asked, (targets.flatten() != -1).nonzero()[:, 0])
        else:
            rows, ve, targets = spliced_one_by_one(lm, soft, said, template)
        lm.forward_embeds(rows, ve).square().sum().backward()
        found.append((rows, rows if ve is None else ve, targets, soft.rows.grad))
    for mine, plain in zip(*found, strict=True):
        assert torch.equal(mine, plain)


class Counter(TorchDispatchMode):
    """Operations that would be sent to a device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("era", ["A", "C", "E"])
def test_the_number_of_operations_does_not_grow_with_the_batch(era: str) -> None:
    lm, seen = tiny_lm(era), []
    for n in (2, 32):
        soft = soft_batch(lm, [5] * n)
        with Counter() as counter:
            build_batch(lm, TOK, soft, ["abc"] * n, SFT, n_soft=[5] * n)
        seen.append(counter.names)
    assert len(seen[0]) == len(seen[1]) <= 60, seen[1]


@pytest.mark.parametrize("era", ["A", "C", "E"])
def test_nothing_of_a_row_or_its_loss_is_asked_back_from_the_device(era: str) -> None:
    """Tensors of the meta device hold no values: who asks for one, by item() or nonzero(), fails."""
    lm = tiny_lm(era).to("meta")
    soft = soft_batch(lm, [5, 2, 9], "meta")
    batch = build_batch(lm, TOK, soft, ["abc", "", "hello"], SFT, n_soft=[5, 2, 9])
    losses = token_losses(lm, batch)
    assert losses.nll.device.type == "meta"
    assert losses.nll.shape == losses.row.shape == (4 + 1 + 6,)
