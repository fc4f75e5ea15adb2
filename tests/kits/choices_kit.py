"""Four-option questions about the made-up speech of training_kit, and LMs that answer in known ways."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from training_kit import WORDS

from omni.bridge.projector import Projector, Soft, build_projector
from omni.bridge.turns import Turn
from omni.evaluation import choices
from omni.evaluation.choice_figures import Scores
from omni.formats.shards import Sample
from omni.formats.tasks import LETTERS, Task
from omni.nanochat.model import NanoChat


def questions(samples: Sequence[Sample], letter: int | None = None) -> list[Task]:
    """What each said first, the keys dealt to the letters, or all at one."""
    found = []
    for i, sample in enumerate(samples):
        said = sample.meta["text_norm"].split()
        options = [word for word in WORDS if word not in said][i % 3 : i % 3 + 3]
        options.insert(i % 4 if letter is None else letter, said[0])
        kind, needs = (("content/first", "words"), ("voice/pace", "voice"))[i % 5 == 4]
        found.append(
            Task(sample.meta["id"], "x", kind, "What came first?", said[0], tuple(options),
                 needs, "template", "CC0-1.0")
        )  # fmt: skip
    return found


def by_id(samples: Sequence[Sample]) -> dict[str, Sample]:
    return {sample.meta["id"]: sample for sample in samples}


def small_projector(lm: NanoChat) -> Projector:
    torch.manual_seed(0)
    return build_projector(
        d_in=16, n_embd=lm.config.n_embd, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32
    ).eval()


def watch_scores(monkeypatch: pytest.MonkeyPatch) -> list[Scores]:
    """Every call's scores, as they come to be counted."""
    seen: list[Scores] = []
    count = choices.choice_figures

    def watched(tasks: Sequence[Task], scores: Scores, put: object) -> object:
        seen.append(scores)
        return count(tasks, scores, put)  # type: ignore[arg-type]

    monkeypatch.setattr(choices, "choice_figures", watched)
    return seen


def hear_perfectly(monkeypatch: pytest.MonkeyPatch, samples: Sequence[Sample]) -> None:
    """An LM that knows what was said wherever it is given that utterance's audio, and else says A."""
    said = {sample.features.tobytes(): sample.meta["text_norm"].split() for sample in samples}

    def project(_: Projector, features: Sequence[np.ndarray], device: object) -> Soft:
        """Which utterance it is, one past its place; 0 for none of them."""
        known = list(said)
        at = [known.index(x.tobytes()) + 1 if x.tobytes() in said else 0 for x in features]
        rows = torch.tensor(at, dtype=torch.float32)[:, None, None]
        return Soft(rows, None, torch.ones(len(at), dtype=torch.long))

    def logits(self: choices._Asker, spoken: choices._Spoken, turns: Sequence[Turn]) -> np.ndarray:
        words = ["", *(text[0] for text in said.values())]
        out = np.zeros((len(turns), 4))
        for i, turn in enumerate(turns):
            word = ""
            if spoken.soft.rows.shape[1] and spoken.heard:
                word = words[int(spoken.soft.rows[i, 0, 0])]
            lines = turn.prompt.splitlines()[1:]
            found = [line for line in lines if line.startswith(f"- {word}=")]
            out[i, LETTERS.index(found[0][-1]) if found else 0] = 1.0
        return out

    monkeypatch.setattr(choices, "project", project)
    monkeypatch.setattr(choices._Asker, "_letter_logits", logits)


def always_says(monkeypatch: pytest.MonkeyPatch, lm: NanoChat, token: int) -> None:
    """An LM with one answer to everything."""

    def forward(
        rows: torch.Tensor, ve: object = None, positions: object = None, **_: object
    ) -> torch.Tensor:
        logits = torch.zeros(*positions.shape, lm.config.vocab_size)
        logits[..., token] = 5.0
        return logits

    monkeypatch.setattr(lm, "forward_embeds", forward)
