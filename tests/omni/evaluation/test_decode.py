"""One decoding path, and where it stops: neither a byte-level vocabulary nor Chinese is cut off."""

import ast
from collections.abc import Callable

import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st
from nanochat_kit import small_encoding
from places import ROOT

from omni.encoder import Bound, most_said
from omni.evaluation.decode import _more
from omni.nanochat import Tokenizer, load_checkpoint
from omni.nanochat.generate import generate

FAST = {  # seconds, and what a fast talker says in them
    "english": (
        4.0,
        "she had your dark suit in greasy wash water all year long and then some more",
    ),
    "chinese": (4.0, "今天天气很好我们一起去公园走走吧然后再回家吃饭看电视睡觉做梦"),
    "hindi": (4.0, "मैं आज सुबह बाज़ार गया था और वहाँ मैंने बहुत सारे फल खरीदे थे"),
    "thai": (4.0, "วันนี้อากาศดีมากเราไปเดินเล่นที่สวนสาธารณะกันเถอะแล้วค่อยกลับบ้าน"),
}


def written(tok: Tokenizer, text: str, seconds: float) -> str:
    """What a model that says `text` and ends is let say."""
    ids = tok.encode(text)
    bound = most_said(round(seconds * 50))
    for n in range(bound.tokens, len(ids)):
        if not _more(tok, [bound], 0, ids[:n]):
            return tok.decode(ids[:n])
    return text


@pytest.mark.parametrize("name", FAST)
def test_fast_talk_is_not_cut_off_in_a_vocabulary_of_bytes(name: str) -> None:
    seconds, text = FAST[name]
    tok = Tokenizer(small_encoding())
    assert len(tok.encode(text)) > most_said(round(50 * seconds)).tokens  # twelve a second are few
    assert written(tok, text, seconds) == text


def test_chinese_is_not_cut_off_in_an_english_vocabulary() -> None:
    tok = Tokenizer(
        tiktoken.Encoding(
            name="english",
            pat_str=r"\s?\S+",
            mergeable_ranks={bytes([v]): v for v in range(256)} | {b" th": 256, b"the": 257},
            special_tokens={"<|bos|>": 258},
        )
    )
    seconds, text = FAST["chinese"]
    assert written(tok, text, seconds) == text


@pytest.mark.parametrize("babble", ["ba " * 4000, "啊" * 4000, "\ufffd" * 4000, "e" * 4000])
def test_babble_ends(babble: str) -> None:
    tok = Tokenizer(small_encoding())
    kept = written(tok, babble, 4.0)
    assert len(kept) <= most_said(200).characters


@given(st.binary(min_size=600, max_size=600), st.integers(1, 200))
def test_any_bytes_end_within_four_tokens_a_letter(data: bytes, n_frames: int) -> None:
    tok = Tokenizer(small_encoding())
    bound = most_said(n_frames)
    n = 4 * bound.characters + 4
    ids = list(data[:n]) * (n // min(n, 600) + 1)
    assert bound.reached(n, lambda: tok.decode(ids[:n]))


def test_a_cap_that_was_asked_for_is_the_cap() -> None:
    assert Bound(5).reached(5, lambda: "")
    assert not Bound(5).reached(4, lambda: "abc")


@pytest.mark.parametrize("frames", [0, 1, 24, 25, 224, 1500])
def test_tokens_stay_twelve_a_second_at_whispers_rate(frames: int) -> None:
    assert most_said(frames).tokens == 8 + frames * 12 // 50
    assert most_said(frames // 2, 25).tokens <= most_said(frames).tokens


def test_a_row_goes_on_as_if_its_cap_had_been_larger() -> None:
    lm, _, _ = load_checkpoint("demo")
    rows, ve = lm.embed(torch.tensor([[5, 9, 17, 33], [40, 2, 0, 0]]))
    args = (lm, rows, ve, torch.tensor([4, 2]), set[int]())
    limits = [30, 11]
    more: Callable[[int, list[int]], bool] = lambda row, ids: len(ids) < limits[row]  # noqa: E731
    assert generate(*args, [3, 2], more=more) == generate(*args, limits)
    assert generate(*args, [3, 2], more=lambda row, ids: False) == generate(*args, [3, 2])


def test_more_ends_where_the_rotary_table_does() -> None:
    lm, _, _ = load_checkpoint("demo")
    size = lm.cos.size(0)
    rows = lm.embed(torch.zeros(1, size - 6, dtype=torch.long))[0]
    (ids,) = generate(
        lm, rows, None, torch.tensor([size - 6]), set(), 2, more=lambda row, ids: True
    )
    assert len(ids) == 6


def test_audio_is_decoded_in_one_place() -> None:
    """A second loop over `generate` would have a cap and an end of its own; tasks write from text."""
    callers = set()
    for room in ("omni", "train", "analyze", "cli"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and any(
                    n.name == "generate" for n in node.names
                ):
                    callers.add(path.relative_to(ROOT).as_posix())
    assert callers == {"omni/evaluation/decode.py"}
