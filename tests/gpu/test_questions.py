"""Four-option questions on a card: the answers that the CPU gives.

.venv/bin/python -m pytest -m gpu tests/gpu/test_questions.py
"""

import pytest
from choices_kit import by_id, questions, small_projector
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.turns import choose_template
from omni.evaluation.choices import score_choices


@pytest.mark.parametrize("kind", ["sft", "base"])
def test_answers_are_those_of_the_cpu(device: str, kind: str) -> None:
    """In float32, of a model whose answers lie further apart than rounding; every condition."""
    samples = speech(8)
    found = []
    for place in (device, "cpu"):
        lm = tiny_lm(sequence_len=256)
        projector = small_projector(lm).to(place)
        got = score_choices(
            lm.to(place), chat_tokenizer(), projector, questions(samples), by_id(samples),
            choose_template({"kind": kind}), 16, controls=("blind", "shuffled", "noise", "transcript"),
        )  # fmt: skip
        found.append(got)
    assert found[0] == found[1]
    assert found[0]["all"]["unanswered"] == 0
