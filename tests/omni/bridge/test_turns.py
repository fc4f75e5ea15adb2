"""Several turns in a row: the ids upstream's chats have, audio in any of them, answers alone asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import chat_tokenizer, tiny_lm

from omni.bridge.projector import Soft
from omni.bridge.prompt import IGNORED, build_batch, build_turns
from omni.bridge.turns import Turn, choose_template, lay_out
from omni.errors import OmniError

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})
BASE = choose_template({"kind": "base"})
AUDIO = -7  # in the reference's list of ids
TURNS = st.lists(
    st.builds(Turn, st.text("ab c", max_size=6), st.text("xyz", max_size=4), st.booleans()),
    min_size=1,
    max_size=4,
)


def reference(turns: list[Turn], counts: list[int]) -> tuple[list[int], list[int]]:
    """A conversation as nanochat writes it, audio as marks; and what comes next where it is asked."""
    s, left = TOK.special, list(counts)
    ids, mine = [s("bos")], [False]
    for turn in turns:
        heard = [AUDIO] * left.pop(0) if turn.audio else []
        user = [s("user_start"), *heard, *TOK.encode(turn.prompt), s("user_end")]
        answer = [*TOK.encode(turn.answer or ""), s("assistant_end")]
        ids += [*user, s("assistant_start"), *answer]
        mine += [False] * (len(user) + 1) + [True] * len(answer)
    following = [*zip(ids[1:], mine[1:], strict=True), (0, False)]
    return ids, [after if own else IGNORED for after, own in following]


@settings(max_examples=60, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=3), st.data())
def test_rows_are_nanochats_conversations_with_audio_in_their_places(
    rows: list[list[Turn]], data: st.DataObject
) -> None:
    lm = tiny_lm()
    audio = [turn for turns in rows for turn in turns if turn.audio]
    counts = [data.draw(st.integers(0, 3)) for _ in audio]
    g = torch.Generator().manual_seed(1)
    N, C = max([*counts, 1]), lm.config.n_embd
    values = torch.randn(len(counts), N, lm.n_ve, lm.kv_dim, generator=g)
    soft = Soft(torch.randn(len(counts), N, C, generator=g), values, torch.tensor(counts).long())
    batch = build_turns(lm, TOK, soft if counts else None, rows, SFT)
    at = 0
    heard = []
    for b, turns in enumerate(rows):
        mine = counts[at : at + sum(turn.audio for turn in turns)]
        ids, targets = reference(turns, mine)
        assert batch.lengths[b] == len(ids)
        assert batch.targets[b, : len(ids)].tolist() == targets
        assert (batch.targets[b, len(ids) :] == IGNORED).all()
        spoken = [i == AUDIO for i in ids]
        own = [soft.rows[at + k, :n] for k, n in enumerate(mine)]
        if any(spoken):
            assert torch.equal(batch.rows[b, : len(ids)][spoken], torch.cat(own))
        text, text_ve = lm.embed(torch.tensor([[i for i in ids if i != AUDIO]]))
        said = [not one for one in spoken]
        assert torch.equal(batch.rows[b, : len(ids)][said], text[0])
        assert torch.equal(batch.ve_rows[b, : len(ids)][said], text_ve[0])
        heard.append(any(spoken))
        at += len(mine)
    told = batch.heard if isinstance(batch.heard, torch.Tensor) else [batch.heard] * len(rows)
    assert [bool(one) for one in told] == heard


def test_one_turn_is_what_build_batch_makes() -> None:
    lm = tiny_lm()
    soft = Soft(torch.randn(2, 3, lm.config.n_embd), None, torch.tensor([3, 2]))
    one = build_batch(lm, TOK, soft, ["hi", None], SFT)
    other = build_turns(lm, TOK, soft, [SFT.repeat("hi"), [Turn(SFT.prompt, None, True)]], SFT)
    assert torch.equal(one.rows, other.rows)
    assert torch.equal(one.targets, other.targets)
    assert one.heard is True


def test_text_in_the_place_of_audio_is_no_audio() -> None:
    lm = tiny_lm()
    soft = Soft(torch.randn(1, 3, lm.config.n_embd), None, torch.tensor([3]))
    assert build_batch(lm, TOK, soft, ["hi"], SFT, heard=False).heard is False
    assert build_turns(lm, TOK, None, [[Turn("hi", "ho")]], SFT).heard is False


def test_a_base_model_answers_after_audio_and_prompt() -> None:
    (row,) = lay_out([[Turn(" why", " so", audio=True)]], [2], BASE, TOK)
    bos = TOK.special("bos")
    assert row.ids == [bos, *TOK.encode(" why"), *TOK.encode(" so"), bos]
    assert [(p.start, p.n) for p in row.pieces] == [(1, 2)]
    assert row.asked == list(range(6, 10))


@pytest.mark.parametrize(
    ("rows", "n_soft", "template", "words"),
    [
        ([[]], [], SFT, "needs a turn"),
        ([[Turn("a"), Turn("b", "c")]], [], SFT, "an answer in each but its last"),
        ([[Turn("a", "b"), Turn("c", "d")]], [], BASE, "no turns"),
        ([[Turn("a", "b", audio=True)]], [], SFT, "1 turns with audio, 0 utterances"),
        ([[Turn("a", "b")]], [3], SFT, "0 turns with audio, 1 utterances"),
    ],
)
def test_what_is_no_row_is_refused(
    rows: list[list[Turn]], n_soft: list[int], template: object, words: str
) -> None:
    with pytest.raises(OmniError, match=words):
        lay_out(rows, n_soft, template, TOK)  # type: ignore[arg-type]
