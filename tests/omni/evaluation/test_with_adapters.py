"""Adapters act wherever a figure is of audio, and in nothing that is read.

The reference is an LM into whose weights they are folded, which hears in every row.

.venv/bin/python -m pytest tests/omni/evaluation/test_with_adapters.py
"""

import numpy as np
import pytest
import torch
from adapters_kit import folded, loud_lora
from choices_kit import by_id, questions, small_projector, watch_scores
from training_kit import chat_tokenizer, speech, tiny_lm

from analyze.measure.lens import look
from omni.bridge.turns import choose_template
from omni.evaluation.cascade import add_cascade
from omni.evaluation.choices import score_choices
from omni.evaluation.decode import decode
from omni.evaluation.evaluate import evaluate
from omni.nanochat.model import NanoChat

TOK = chat_tokenizer()
SFT = choose_template({"kind": "sft"})
SAMPLES = speech(10)


@pytest.fixture(scope="module")
def lms() -> dict[str, NanoChat]:
    """The same LM bare, with adapters, and with these folded in."""
    bare, worn = tiny_lm(sequence_len=256), tiny_lm(sequence_len=256)
    lora = loud_lora(worn)
    return {"bare": bare, "worn": worn.wear(lora), "folded": folded(bare, lora)}


def test_every_condition_of_an_evaluation_hears(lms: dict[str, NanoChat]) -> None:
    """No audio at all too: what the adapters know without any is what is asked there."""
    found = {
        name: evaluate(lm, TOK, small_projector(lm), SAMPLES, SFT, 4) for name, lm in lms.items()
    }
    for key in ("ce", "ce_shuffled", "ce_zero", "ce_mean", "ce_none"):
        assert found["worn"][key] == pytest.approx(found["folded"][key], abs=1e-5), key
        assert abs(found["worn"][key] - found["bare"][key]) > 1e-3, key
    said = {name: [u["hypothesis"] for u in f["utterances"]] for name, f in found.items()}
    assert said["worn"] == said["folded"]
    assert said["worn"] != said["bare"]


def test_what_decodes_hears_to_its_last_token(lms: dict[str, NanoChat]) -> None:
    features = [s.features for s in SAMPLES]
    said = {
        name: decode(lm, TOK, small_projector(lm), features, SFT, 3, max_new=12)
        for name, lm in lms.items()
    }
    assert said["worn"] == said["folded"]
    assert said["worn"] != said["bare"]


def test_every_score_of_a_question_is_heard_but_what_is_read(
    lms: dict[str, NanoChat], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without audio too: an audio row it remains."""
    seen = watch_scores(monkeypatch)
    controls = ("blind", "shuffled", "noise", "transcript")
    for lm in lms.values():
        score_choices(
            lm, TOK, small_projector(lm), questions(SAMPLES), by_id(SAMPLES), SFT, controls=controls
        )
    for kind in ("letters", "texts"):
        bare, worn, inside = (getattr(scores, kind) for scores in seen)
        assert list(worn) == ["right", "prior", *controls]
        for name in worn:
            same, other = (bare, inside) if name == "transcript" else (inside, bare)
            assert worn[name] == pytest.approx(same[name], abs=2e-4, nan_ok=True), name
            assert np.nanmax(np.abs(worn[name] - other[name])) > 1e-2, name


def test_questions_are_heard_and_transcripts_are_read(lms: dict[str, NanoChat]) -> None:
    found = {
        name: score_choices(
            lm, TOK, small_projector(lm), questions(SAMPLES), by_id(SAMPLES), SFT,
            controls=("blind", "shuffled", "noise", "transcript"),
        )
        for name, lm in lms.items()
    }  # fmt: skip
    told = {
        name: {
            "right": [q["said"] for q in f["questions"]],
            **{c: [q["controls"][c] for q in f["questions"] if c in q["controls"]] for c in ("blind", "shuffled", "noise", "transcript")},
            "text": [q["text_right"] for q in f["questions"]],
        }
        for name, f in found.items()
    }  # fmt: skip
    for heard in ("right", "blind", "shuffled", "noise", "text"):
        assert told["worn"][heard] == told["folded"][heard], heard
    assert told["worn"]["right"] != told["bare"]["right"]
    assert told["worn"]["transcript"] == told["bare"]["transcript"]
    worn, bare = (found[n]["all"]["controls"]["transcript"] for n in ("worn", "bare"))
    assert {**worn, "mcnemar_p": 0} == {**bare, "mcnemar_p": 0}


def test_the_cascade_reads(lms: dict[str, NanoChat]) -> None:
    ces = {}
    for name, lm in lms.items():
        figures = evaluate(lm, TOK, small_projector(lm), SAMPLES, SFT, 4)
        add_cascade(figures, lm, TOK, SFT, SAMPLES, lambda x, n: ["red door"] * len(x))
        ces[name] = figures["ce_cascade"]
    assert ces["worn"] == ces["bare"] != ces["folded"]


@torch.inference_mode()
def test_inside_the_lm_the_report_sees_what_is_heard(lms: dict[str, NanoChat]) -> None:
    for projector, same in ((True, "folded"), (False, "bare")):
        states = {
            name: look(lm, TOK, SAMPLES, SFT, small_projector(lm) if projector else None).states[-1]
            for name, lm in lms.items()
        }
        other = "bare" if same == "folded" else "folded"
        assert states["worn"] == pytest.approx(states[same], abs=1e-4)
        assert np.abs(states["worn"] - states[other]).max() > 1e-2
