"""What is heard instead in the controls of a question: another utterance, noise, audio without content.

Must not know a model, nor how a question is scored.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from omni.formats.shards import Sample
from omni.formats.tasks import Task


class Spread(NamedTuple):
    """Mean and standard deviation of each channel, float64 ([L,] 1, d)."""

    mean: np.ndarray
    deviation: np.ndarray


def spread_of(samples: Sequence[Sample]) -> Spread:
    """Over all frames of these samples, in the order given."""
    n = sum(s.features.shape[-2] for s in samples)
    total = sum(s.features.astype(np.float64).sum(-2, keepdims=True) for s in samples)
    mean = np.asarray(total / n)
    squares = sum(((s.features - mean) ** 2).sum(-2, keepdims=True) for s in samples)
    return Spread(mean, np.sqrt(np.asarray(squares / n)))


def noise_like(sample: Sample, spread: Spread) -> np.ndarray:
    """Normal frames with the data's mean and spread, as many as the sample has; a draw of its id."""
    x = sample.features
    seed = int.from_bytes(hashlib.sha256(sample.meta["id"].encode()).digest()[:8], "little")
    drawn = np.random.default_rng(seed).standard_normal(x.shape)
    return (spread.mean + spread.deviation * drawn).astype(x.dtype)


def without_content(sample: Sample, spread: Spread) -> np.ndarray:
    """The data's mean frame, as often as the sample has frames: as long, and says nothing."""
    x = sample.features
    return np.repeat(spread.mean, x.shape[-2], -2).astype(x.dtype)


def partners(
    asked: Sequence[Task], tasks: Sequence[Task], samples: Mapping[str, Sample]
) -> list[str]:
    """For each question asked the utterance that is heard instead, "" where there is none.

    Its answer must be another: a question of the same kind about it has another key, none has this one,
    and what was said there does not hold the key's words. Of these the nearest in length, so that
    length tells nothing.

    Args:
        tasks: whose utterances may be heard.
    """
    answers: dict[tuple[str, str], set[str]] = {}
    for task in tasks:
        answers.setdefault((task.kind, task.id), set()).add(_plain(task.answer))
    by_kind: dict[str, list[str]] = {}
    for kind, key in sorted(answers):
        by_kind.setdefault(kind, []).append(key)
    found = []
    for task in asked:
        own = samples[task.id].features.shape[-2]
        key = _plain(task.answer)
        others = [
            other
            for other in by_kind[task.kind]
            if other != task.id
            and key not in answers[task.kind, other]
            and f" {key} " not in f" {_plain(samples[other].meta['text_norm'])} "
        ]
        lengths = {other: samples[other].features.shape[-2] for other in others}
        found.append(min(others, key=lambda x: (abs(lengths[x] - own), x), default=""))
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
