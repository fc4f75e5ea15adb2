"""What the report looks at: held-out utterances, and where a projector puts their audio.

Memory is bounded: features of at most `MAX_FRAMES` frames are held, soft tokens one by one for
the first `MAX_SOFT` alone; everything else is kept as a sum an utterance.
Must not know about numbers, pictures or pages.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analyze.metrics import Floats, Ints, Moments, nearest_tokens
from omni import shards
from omni.errors import OmniError
from omni.evaluate import derangement, project
from omni.nanochat import NanoChat, Tokenizer
from omni.nanochat.model import norm
from omni.projector import Projector

MAX_FRAMES = 1_000_000  # 5.5 hours; 1 GB in float16 at whisper-base's width
MAX_SOFT = 60_000
BATCH = 16
FRAME_SECONDS = 0.02

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress for callers that want none."""


def choose(samples: Iterable[shards.Sample], n: int, seed: int) -> list[str]:
    """Keys of `n` utterances, as even over the speakers as their numbers allow.

    A pure function of the keys, the speakers and the seed: within a speaker by a seeded hash,
    then one of each speaker in turn. The order is meant: any prefix is balanced as well.
    """
    by_speaker: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for sample in samples:
        rank = hashlib.sha256(f"{seed}:{sample.key}".encode()).hexdigest()
        by_speaker[str(sample.meta["speaker"])].append((rank, sample.key))
    turns = [sorted(ranked) for _, ranked in sorted(by_speaker.items())]
    dealt = sorted((turn, rank, key) for ranked in turns for turn, (rank, key) in enumerate(ranked))
    return [key for _, _, key in dealt[:n]]


def load(paths: Sequence[str], n: int, seed: int) -> list[shards.Sample]:
    """The chosen samples in their balanced order, cut where `MAX_FRAMES` is reached.

    Two passes over the shards: the first sees the speakers, the second keeps the features.

    Raises:
        OmniError: the shards hold no utterance with a transcript.
    """
    with_text = (s for s in shards.read(paths) if str(s.meta["text_norm"]).strip())
    keys = choose(with_text, n, seed)
    if not keys:
        raise OmniError("no utterance with a transcript", where=", ".join(map(str, paths)))
    wanted = set(keys)
    held = {s.key: s for s in shards.read(paths) if s.key in wanted}
    chosen: list[shards.Sample] = []
    frames = 0
    for key in keys:
        frames += held[key].features.shape[-2]
        if frames > MAX_FRAMES and chosen:
            break
        chosen.append(held[key])
    return chosen


@dataclass(frozen=True)
class Text:
    """The transcripts as the LM's embedding table has them.

    ids: token ids of each utterance. rows: (P, C) float32, normed embedding rows of the detail
    utterances' tokens; utterance (P,), place (P,) index in the transcript. means: (U, C);
    moments over all utterances; table: (V, C) normed rows of the whole vocabulary; rms (V,) of
    those rows before the norm.
    """

    ids: Sequence[Ints]
    rows: Floats
    utterance: Ints
    place: Ints
    means: Floats
    moments: Moments
    table: Floats
    rms: Floats


@dataclass(frozen=True)
class Audio:
    """The soft tokens of one projector, as the LM's norm lets them in.

    rows: (P, C) float32, normed; utterance (P,); step (P,) index in the utterance; rms (P,) of
    the row before the norm; nearest (P,) token of the highest cosine and its cosine (P,);
    nearest_value (P,) the same by value-embedding rows, or None where there are none.
    means: (U, C); moments over all utterances; n_soft (U,).
    """

    rows: Floats
    utterance: Ints
    step: Ints
    rms: Floats
    nearest: Ints
    cosine: Floats
    nearest_value: Ints | None
    means: Floats
    moments: Moments
    n_soft: Ints

    def of(self, utterance: int) -> slice:
        """The rows of one detail utterance."""
        low, high = np.searchsorted(self.utterance, [utterance, utterance + 1])
        return slice(int(low), int(high))


@torch.inference_mode()
def read_text(lm: NanoChat, tok: Tokenizer, samples: Sequence[shards.Sample], detail: int) -> Text:
    """Embed the transcripts; `detail`: how many leading utterances keep their single rows."""
    raw = _table(lm)[0].float()
    table = norm(raw).cpu().numpy()
    ids = [np.array(tok.encode(str(s.meta["text_norm"])), np.int64) for s in samples]
    groups = np.repeat(np.arange(len(ids)), [len(i) for i in ids])
    flat = np.concatenate(ids)
    moments = Moments.of(table[flat], groups, len(ids))
    kept = groups < detail
    place = np.concatenate([np.arange(len(i)) for i in ids])
    return Text(
        ids, table[flat[kept]], groups[kept], place[kept], _means(moments), moments, table,
        raw.pow(2).mean(-1).sqrt().cpu().numpy(),
    )  # fmt: skip


@torch.inference_mode()
def read_audio(
    lm: NanoChat,
    projector: Projector,
    samples: Sequence[shards.Sample],
    detail: int,
    progress: Progress = silent,
    stage: str = "project",
) -> Audio:
    """Project every utterance; keep single soft tokens of the `detail` leading ones."""
    token_rows, token_values = _table(lm)
    table = norm(token_rows.float()).cpu().numpy()
    values = None if token_values is None else token_values.float().flatten(1).cpu().numpy()
    sums, squares, n_soft = [], [], []
    kept: dict[str, list[np.ndarray]] = defaultdict(list)
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        soft = project(projector, [s.features for s in part], lm.device)
        for i, n in enumerate(soft.lengths.tolist()):
            raw = soft.rows[i, :n].float()
            rows = norm(raw).cpu().numpy()
            sums.append(rows.sum(0, dtype=np.float64))
            squares.append(float((rows.astype(np.float64) ** 2).sum()))
            n_soft.append(n)
            if start + i >= detail:
                continue
            kept["rows"].append(rows)
            kept["utterance"].append(np.full(n, start + i))
            kept["step"].append(np.arange(n))
            kept["rms"].append(raw.pow(2).mean(-1).sqrt().cpu().numpy())
            if values is not None and soft.ve_rows is not None:
                own = soft.ve_rows[i, :n].float().flatten(1).cpu().numpy()
                kept["value"].append(nearest_tokens(own, values)[0] if own.any() else -np.ones(n))
        progress(stage, min(start + BATCH, len(samples)), len(samples))
    joined = {name: np.concatenate(parts) for name, parts in kept.items()}
    nearest, cosine = nearest_tokens(joined["rows"], table)
    moments = Moments(np.array(sums), np.array(squares), np.array(n_soft, float))
    return Audio(
        joined["rows"], joined["utterance"], joined["step"], joined["rms"], nearest, cosine,
        joined["value"].astype(np.int64) if "value" in joined else None,
        _means(moments), moments, np.array(n_soft),
    )  # fmt: skip


def detail_count(samples: Sequence[shards.Sample], projector: Projector) -> int:
    """How many leading utterances fit in `MAX_SOFT` soft tokens; at least one."""
    soft = np.cumsum([projector.output_length(s.features.shape[-2]) for s in samples])
    return max(1, int((soft <= MAX_SOFT).sum()))


def partners(samples: Sequence[shards.Sample]) -> Ints:
    """For each utterance another of about its length that says something else (U,).

    The same pairing rule as the shuffled-audio gap's. An utterance keeps itself where no other
    can be had.
    """
    order = sorted(
        range(len(samples)), key=lambda i: (samples[i].features.shape[-2], samples[i].meta["id"])
    )
    dealt = derangement([str(samples[i].meta["text_norm"]) for i in order])
    partner = np.zeros(len(samples), np.int64)
    partner[order] = [order[j] for j in dealt]
    return partner


def _table(lm: NanoChat) -> tuple[Tensor, Tensor | None]:
    """Embedding rows (V, C) and value rows (V, n_ve, kv_dim) of the whole vocabulary."""
    ids = torch.arange(lm.config.vocab_size, device=lm.device)[None]
    rows, values = lm.embed(ids)
    return rows[0], None if values is None else values[0]


def _means(moments: Moments) -> Floats:
    """Mean row of each utterance (U, C)."""
    return moments.sums / np.maximum(moments.counts, 1)[:, None]
