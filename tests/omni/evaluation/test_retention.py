"""What is kept: rows of text to the bit, measured; and the curve over the adapters' scale.

.venv/bin/python -m pytest tests/omni/evaluation/test_retention.py
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adapters_kit import folded, loud_lora
from choices_kit import by_id, questions, small_projector
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.turns import choose_template, letter_ids
from omni.errors import OmniError
from omni.evaluation import scoring
from omni.evaluation.choices import score_choices
from omni.evaluation.curve import scale_curve
from omni.evaluation.decode import decode
from omni.evaluation.obedience import obedience
from omni.evaluation.retention import text_kept, word_error_rate
from omni.formats.tasks import LETTERS, Task, question
from omni.nanochat.model import NanoChat

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})
SAMPLES = speech(8)
CHATS = [
    Task(
        "",
        "",
        "text",
        f"Which of {i}?",
        "red",
        ("red", "blue", "gold", "cup"),
        "none",
        "text",
        "MIT",
    )
    for i in range(3)
]
TASKS = [*questions(SAMPLES), *CHATS]


def wearing(size: float = 0.3) -> NanoChat:
    lm = tiny_lm(sequence_len=256)
    return lm.wear(loud_lora(lm, size=size))


@torch.inference_mode()
def test_rows_of_text_are_scored_as_by_hand_and_the_same_without_adapters() -> None:
    """A transcript and a question are one text; a chat is itself."""
    lm = wearing()
    lora = lm.lora
    got = text_kept(lm, TOK, TASKS, by_id(SAMPLES), SFT, 3)
    assert lm.lora is lora, "it wears them again"
    s, nats, right = TOK.special, 0.0, []
    for task in TASKS:
        front = by_id(SAMPLES)[task.id].meta["text_norm"] + " " if task.id else ""
        head = [s("bos"), s("user_start")]
        turn = [s("user_end"), s("assistant_start")]
        target = [*TOK.encode(task.answer), s("assistant_end")]
        ids = torch.tensor([[*head, *TOK.encode(front + task.prompt), *turn, *target]])
        own = lm(ids)[0, -len(target) - 1 : -1].log_softmax(-1)
        nats -= float(own[range(len(target)), target].sum())
        for r in range(4):
            q = question(task, r)
            ids = torch.tensor([[*head, *TOK.encode(front + q.prompt), *turn]])
            right.append(LETTERS[int(lm(ids)[0, -1, letter_ids(TOK)].argmax())] == q.key)
    n_bytes = sum(len(task.answer) for task in TASKS)
    assert got["bits_per_byte"] == pytest.approx(nats / np.log(2) / n_bytes, rel=1e-5)
    assert got["accuracy"] == pytest.approx(np.mean(right))
    assert got["bits_per_byte"] == got["bits_per_byte_bare"]
    assert got["accuracy"] == got["accuracy_bare"]
    assert (got["identical"], got["n"], got["questions"]) == (True, 11, 11)


def test_adapters_that_act_everywhere_are_told_apart() -> None:
    """As measured for a run that trained them so; the reference has them folded in."""
    lm = wearing()
    got = text_kept(lm, TOK, TASKS, by_id(SAMPLES), SFT, everywhere=True)
    inside = folded(tiny_lm(sequence_len=256), loud_lora(lm))
    expected = text_kept(inside.wear(None), TOK, TASKS, by_id(SAMPLES), SFT)
    assert not got["identical"]
    assert got["bits_per_byte"] == pytest.approx(expected["bits_per_byte"], rel=1e-5)
    assert abs(got["bits_per_byte"] - got["bits_per_byte_bare"]) > 1e-3


def test_a_leak_into_rows_of_text_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = wearing()
    forward = lm.forward_embeds
    monkeypatch.setattr(lm, "forward_embeds", lambda *a, **k: forward(*a, **{**k, "heard": True}))
    with pytest.raises(OmniError, match="other logits with adapters"):
        text_kept(lm, TOK, TASKS, by_id(SAMPLES), SFT)
    assert lm.lora is not None


def test_a_base_model_reads_options_texts() -> None:
    """After a blank, as a text goes on, and a document's end."""
    lm = wearing()
    got = text_kept(lm, TOK, TASKS, by_id(SAMPLES), choose_template({"kind": "base"}))
    bos, right = TOK.special("bos"), []
    for task in TASKS:
        front = by_id(SAMPLES)[task.id].meta["text_norm"] + " " if task.id else ""
        likely = []
        for option in task.options:
            target = [*TOK.encode(f" {option}"), bos]
            ids = torch.tensor([[bos, *TOK.encode(front + task.prompt), *target]])
            own = lm(ids)[0, -len(target) - 1 : -1].log_softmax(-1)
            likely.append(float(own[range(len(target)), target].sum().detach()))
        right.append(likely.index(max(likely)) == task.key)
    assert got["identical"]
    assert got["accuracy"] == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 1


def test_rows_that_fit_in_no_row_and_none_at_all() -> None:
    lm = tiny_lm(sequence_len=16)
    lm.wear(loud_lora(lm))
    long = replace(CHATS[0], prompt="Why? " * 60)
    assert text_kept(lm, TOK, [long, *CHATS[1:]], {}, SFT)["n"] == 2
    with pytest.raises(OmniError, match="no row of text"):
        text_kept(lm, TOK, [long], {}, SFT)
    open_chat = replace(CHATS[0], options=())
    assert "accuracy" not in text_kept(lm, TOK, [open_chat], {}, SFT)


def test_word_errors_are_those_of_the_transcripts() -> None:
    lm = wearing()
    projector = small_projector(lm)
    order = sorted(SAMPLES, key=lambda s: (s.features.shape[0], s.meta["id"]))
    ids = decode(lm, TOK, projector, [s.features for s in order], SFT)
    errors = [
        scoring.score(s.meta["text_norm"], TOK.decode(x).strip()).errors
        for s, x in zip(order, ids, strict=True)
    ]
    expected = sum(e.total for e in errors) / sum(e.n for e in errors)
    silent = replace(SAMPLES[0], meta={**SAMPLES[0].meta, "text_norm": ""})
    assert word_error_rate(lm, TOK, projector, [*SAMPLES, silent], SFT, 3) == expected
    assert word_error_rate(lm, TOK, projector, [silent], SFT) is None


def test_the_curve_is_each_scale_by_itself_and_leaves_the_lm_as_it_was() -> None:
    lm = wearing()
    projector, known = small_projector(lm), by_id(SAMPLES)
    tasks = questions(SAMPLES)
    assert lm.lora is not None
    lm.lora.scale = 0.9
    points = scale_curve(lm, TOK, projector, tasks, known, SFT, scales=(0.0, 1.0, 1.5))
    assert lm.lora.scale == 0.9
    bare = tiny_lm(sequence_len=256)
    for point in points:
        lm.lora.scale = point["scale"]
        one = lm if point["scale"] else bare
        scored = score_choices(one, TOK, projector, tasks, known, SFT, controls=(), texts=False)
        obeyed = obedience(one, TOK, projector, tasks, known, SFT)
        assert obeyed is not None
        assert point == {
            "scale": point["scale"],
            "accuracy": scored["all"]["accuracy"],
            "strict": scored["all"]["strict"],
            "transcribes": obeyed["transcribes"],
            "wer": word_error_rate(one, TOK, projector, SAMPLES, SFT),
        }
    assert len({point["wer"] for point in points}) > 1
    assert len(scale_curve(lm, TOK, projector, tasks, known, SFT, limit=2, decode_limit=2)) == 7
    with pytest.raises(ValueError, match="without adapters"):
        scale_curve(bare, TOK, projector, tasks, known, SFT)
