"""What the demo LM is shown beside its targets, and the optimiser that it learns with.

.venv/bin/python -m pytest tests/scripts/test_demo_hints.py
"""

import sys

import pytest
import torch
import torch.nn.functional as F
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from demo_hints import NOWHERE, POINTS, Look, Reader, attention, hint_loss
from demo_optimisers import Muon, muon, orthogonal
from demo_rows import Row, Turn, lay_out, pad
from train_demo_lm import question_texts, train_tokenizer

from omni.bridge.prompt import IGNORED
from omni.nanochat import NanoChat, NanoChatConfig, random_init
from omni.nanochat.tokenizer import Tokenizer

OPTIONS = "\n- seven=A\n- two=B\n- nine=C\n- three=D"
PHRASES = "\n- by the lake at seven=A\n- by the lake at two=B\n- by the lake at six=C\n- by the lake at one=D"


@pytest.fixture(scope="module")
def tok() -> Tokenizer:
    return train_tokenizer(question_texts(["two lines of text", "and no more"] * 9), 1024)


def row_of(tok: Tokenizer, *turns: Turn) -> Row:
    return lay_out(tok, tok.encode("hold two by two"), turns)


@pytest.fixture(scope="module")
def lm(tok: Tokenizer) -> NanoChat:
    return random_init(NanoChatConfig(256, tok.vocab_size, 6, 2, 2, 32, "L"), "E", 0)


def word(tok: Tokenizer, row: Row, at: int) -> str:
    return tok.decode([row.ids[at]])


def test_a_letter_is_hinted_by_its_word_and_its_place(tok: Tokenizer) -> None:
    row = row_of(tok, Turn(f"Which number?{OPTIONS}", "B"))
    hints = Reader(tok).of(row)
    said = row.ids.index(tok.special("assistant_start"))
    (look,) = hints.points
    assert look.at == said
    assert [word(tok, row, at) for at in look.to] == ["=B"]
    assert hints.phrases == [Look(said, [NOWHERE])]
    assert hints.words[said + 1] == tok.encode("two")[0]
    assert row.targets[said + 1] == tok.encode("B")[0]
    assert [a for a, b in zip(hints.words, row.targets, strict=True) if a != b] == tok.encode("two")


def test_what_is_asked_about_is_hinted_where_it_was_heard(tok: Tokenizer) -> None:
    row = row_of(tok, Turn(f'After "hold"?{OPTIONS}', "B"))
    found = {word(tok, row, look.at): look.to for look in Reader(tok).of(row).finds}
    assert found == {"hold": [2], " two": [3, 5], " seven": [0], " nine": [0], " three": [0]}


def test_a_phrase_is_pointed_at_by_a_head_of_its_own(tok: Tokenizer) -> None:
    row = row_of(tok, Turn(f"Which was said?{PHRASES}", "C"))
    hints = Reader(tok).of(row)
    (look,) = hints.phrases
    assert [word(tok, row, at) for at in look.to] == ["=C"]
    assert [p.to for p in hints.points] == [[NOWHERE]]
    assert hints.words[look.at + 1] == IGNORED


def test_options_stay_for_later_turns_and_open_answers_are_left_alone(tok: Tokenizer) -> None:
    row = row_of(
        tok, Turn("The last?", "two"), Turn(f"Which?{OPTIONS}", "C"), Turn("Which else?", "A")
    )
    hints = Reader(tok).of(row)
    assert [word(tok, row, at) for p in hints.points for at in p.to] == ["=C", "=A"]
    changed = [a for a, b in zip(hints.words, row.targets, strict=True) if a != b]
    assert [tok.decode([i]) for i in changed] == ["nine", "seven"]


def test_a_tokenizer_that_splits_letters_from_their_sign_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        Reader(train_tokenizer(["no lists at all"] * 9, 300))


def test_attention_is_what_the_layer_computes(tok: Tokenizer, lm: NanoChat) -> None:
    """With values that name their position, the layer's own output tells where its head looked."""
    ids, _ = pad([row_of(tok, Turn(f"Which?{OPTIONS}", "B"))])
    states = lm.hidden_states(*lm.embed(ids))
    seen: list[torch.Tensor] = []
    inner = F.scaled_dot_product_attention

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **more: object) -> torch.Tensor:
        seen.append(inner(q, k, torch.eye(k.shape[2]).expand(*k.shape[:2], -1, -1), is_causal=True))
        return inner(q, k, v, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        lm.hidden_states(*lm.embed(ids))
    for head in (0, 1):
        mine = attention(lm, states, POINTS, head).exp()
        torch.testing.assert_close(mine, seen[POINTS][:, head], atol=1e-5, rtol=1e-4)


def test_hints_alone_teach_where_to_look(tok: Tokenizer) -> None:
    lm = random_init(NanoChatConfig(256, tok.vocab_size, 6, 2, 2, 32, "L"), "E", 0)
    rows = [row_of(tok, Turn(f'After "hold"?{OPTIONS}', letter)) for letter in "ABCD"]
    hints = [Reader(tok).of(row) for row in rows]
    ids, _ = pad(rows)
    optimiser = muon(lm, 0.02)
    losses = []
    for _ in range(12):
        loss = hint_loss(lm, lm.hidden_states(*lm.embed(ids)), hints)
        losses.append(loss.item())
        loss.backward()
        optimiser.step(1.0)
    assert losses[-1] < 0.7 * losses[0]


def test_muon_makes_the_step_of_torchs_own() -> None:
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (32, 8), (8, 32)]
    ours = [torch.randn(shape, requires_grad=True) for shape in shapes]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    one = Muon(ours, 0.1)
    two = torch.optim.Muon(theirs, lr=0.1, momentum=0.95, weight_decay=0.0)
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        one.step()
        two.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)  # theirs rounds to bf16


def test_orthogonal_brings_singular_values_near_one() -> None:
    x = orthogonal(torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0)))
    assert x.shape == (3, 20, 6)
    values = torch.linalg.svdvals(x)
    assert values.min() > 0.6
    assert values.max() < 1.3
