"""What the report looks at: held-out utterances, and where a projector puts their audio.

Memory is bounded: features of at most `MAX_FRAMES` frames are held, soft tokens one by one for
the first ones alone (`MAX_KEPT`); everything else is kept as a sum an utterance.
Must not know about numbers, pictures or pages.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from analyze.measure.formulas import Floats, Ints, Moments, nearest_tokens
from omni.bridge.frames import derangement
from omni.bridge.projector import Projector, project
from omni.errors import OmniError
from omni.formats import shards
from omni.nanochat import NanoChat, Tokenizer
from omni.nanochat.layers import norm

MAX_FRAMES = 1_000_000  # 5.5 hours; 1 GB in float16 at whisper-base's width
MAX_KEPT = 40_000_000  # numbers in the rows of single soft tokens: 160 MB for each projector
BATCH = 16

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress for callers that want none."""


def choose(speakers: Iterable[tuple[str, str]], n: int, seed: int) -> list[str]:
    """Keys of `n` utterances, as even over the speakers as their numbers allow.

    Args:
        speakers: (key, speaker) of every utterance.

    A pure function of the keys, the speakers and the seed: within a speaker by a seeded hash,
    then one of each speaker in turn. The order is meant: any prefix is balanced as well.
    """
    by_speaker: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, speaker in speakers:
        rank = hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
        by_speaker[speaker].append((rank, key))
    turns = [sorted(ranked) for _, ranked in sorted(by_speaker.items())]
    dealt = sorted((turn, rank, key) for ranked in turns for turn, (rank, key) in enumerate(ranked))
    return [key for _, _, key in dealt[:n]]


def load(paths: Sequence[str], n: int, seed: int, ids: Collection[str] = ()) -> list[shards.Sample]:
    """The chosen samples in their balanced order, cut where `MAX_FRAMES` is reached.

    Two passes over the shards: the first sees the speakers, the second keeps the features.

    Args:
        ids: choose among these utterances alone; empty for all.

    Raises:
        OmniError: the shards hold no such utterance with a transcript.
    """
    allowed, where = set(ids), {}
    for path in paths:
        for key, meta in shards.read_metas(path):
            if str(meta["text_norm"]).strip() and (not allowed or meta["id"] in allowed):
                where[key] = path, str(meta["speaker"])
    keys = choose(((key, speaker) for key, (_, speaker) in where.items()), n, seed)
    if not keys:
        raise OmniError("no utterance with a transcript", where=", ".join(map(str, paths)))
    wanted = set(keys)
    needed = [path for path in paths if path in {where[key][0] for key in keys}]
    held = {s.key: s for s in shards.read(needed) if s.key in wanted}
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
    """The transcripts as one of the LM's tables has them.

    ids: token ids of each utterance. rows: (P, D) float32, the table's rows for the detail
    utterances' tokens; utterance (P,), place (P,) index in the transcript. means: (U, D);
    moments over all utterances; table: (V, D), the whole vocabulary; rms (V,) of the rows
    before the norm. `value`: the same for the value-embedding tables, all layers in a row
    (D = n_ve * kv_dim, no norm), or None.
    """

    ids: Sequence[Ints]
    rows: Floats
    utterance: Ints
    place: Ints
    means: Floats
    moments: Moments
    table: Floats
    rms: Floats
    value: "Text | None" = None


@dataclass(frozen=True)
class Audio:
    """The soft tokens of one projector, as the LM's norm lets them in.

    rows: (P, D) float32, normed; utterance (P,); step (P,) index in the utterance; rms (P,) of
    the row before the norm; nearest (P,) token of the highest cosine in the text's table.
    means: (U, D); moments over all utterances; n_soft (U,). `value`: the same for the value
    rows (no norm), or None where the projector gives none or only zeros.
    """

    rows: Floats
    utterance: Ints
    step: Ints
    rms: Floats
    nearest: Ints
    means: Floats
    moments: Moments
    n_soft: Ints
    value: "Audio | None" = None

    def of(self, utterance: int) -> slice:
        """The rows of one detail utterance."""
        low, high = np.searchsorted(self.utterance, [utterance, utterance + 1])
        return slice(int(low), int(high))

    @property
    def detail(self) -> int:
        """How many utterances have their single soft tokens kept."""
        return int(self.utterance[-1]) + 1


@torch.inference_mode()
def read_text(lm: NanoChat, tok: Tokenizer, samples: Sequence[shards.Sample], detail: int) -> Text:
    """Look the transcripts up; `detail`: how many leading utterances keep their single rows."""
    ids = [np.array(tok.encode(str(s.meta["text_norm"])), np.int64) for s in samples]
    rows, values = lm.embed(torch.arange(lm.config.vocab_size, device=lm.device)[None])
    value = None
    if values is not None:
        # Half precision: a large model's value tables are its largest part.
        value = _text(ids, values[0].flatten(1).half().cpu().numpy(), values[0].flatten(1), detail)
    text = _text(ids, norm(rows[0].float()).cpu().numpy(), rows[0], detail)
    return replace(text, value=value)


def _text(ids: Sequence[Ints], table: Floats, raw: Tensor, detail: int) -> Text:
    groups = np.repeat(np.arange(len(ids)), [len(i) for i in ids])
    flat = np.concatenate(ids)
    moments = Moments.of(table[flat].astype(np.float64), groups, len(ids))
    kept = groups < detail
    place = np.concatenate([np.arange(len(i)) for i in ids])
    rms = raw.float().pow(2).mean(-1).sqrt().cpu().numpy()
    return Text(
        ids, table[flat[kept]].astype(np.float32), groups[kept], place[kept], _means(moments),
        moments, table, rms,
    )  # fmt: skip


@torch.inference_mode()
def read_audio(
    lm: NanoChat,
    projector: Projector,
    samples: Sequence[shards.Sample],
    text: Text,
    detail: int,
    progress: Progress = silent,
    most: int = BATCH,
    stage: str = "project",
) -> Audio:
    """Project every utterance, at most `most` at once; keep single soft tokens of the `detail`
    leading ones."""
    batch = min(BATCH, most)
    own, value = _Gatherer(detail), _Gatherer(detail)
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        soft = project(projector, [s.features for s in part], lm.device)
        for i, n in enumerate(soft.lengths.tolist()):
            raw = soft.rows[i, :n].float()
            own.add(norm(raw), raw)
            if soft.ve_rows is not None:
                values = soft.ve_rows[i, :n].float().flatten(1)
                value.add(values, values)
        progress(stage, min(start + batch, len(samples)), len(samples))
    audio = own.audio(text)
    if text.value is None or not value.squares or not any(value.squares):
        return audio
    return replace(audio, value=value.audio(text.value))


class _Gatherer:
    """Rows of one kind, utterance by utterance: sums of all, single rows of the leading ones."""

    def __init__(self, detail: int) -> None:
        self.detail = detail
        self.sums: list[Floats] = []
        self.squares: list[float] = []
        self.n_soft: list[int] = []
        self.rows: list[Floats] = []
        self.rms: list[Floats] = []

    def add(self, rows: Tensor, raw: Tensor) -> None:
        """The soft tokens (n, D) of the next utterance, as the LM sees them and as projected."""
        if len(self.rows) < self.detail:
            self.rows.append(rows.cpu().numpy())
            self.rms.append(raw.pow(2).mean(-1).sqrt().cpu().numpy())
        wide = rows.double()
        self.sums.append(wide.sum(0).cpu().numpy())
        self.squares.append(float(wide.pow(2).sum()))
        self.n_soft.append(len(rows))

    def audio(self, text: Text) -> Audio:
        """What was gathered, read by the nearest token of the text's table."""
        sizes = [len(rows) for rows in self.rows]
        rows = np.concatenate(self.rows)
        moments = Moments(np.array(self.sums), np.array(self.squares), np.array(self.n_soft, float))
        return Audio(
            rows=rows,
            utterance=np.repeat(np.arange(len(sizes)), sizes),
            step=np.concatenate([np.arange(n) for n in sizes]),
            rms=np.concatenate(self.rms),
            nearest=nearest_tokens(rows, text.table)[0],
            means=_means(moments),
            moments=moments,
            n_soft=np.array(self.n_soft),
        )


def detail_count(samples: Sequence[shards.Sample], projector: Projector) -> int:
    """How many leading utterances keep single soft tokens within `MAX_KEPT` numbers; at least one."""
    config = projector.config
    width = config["n_embd"] + config["n_ve"] * config["kv_dim"]
    soft = np.cumsum([projector.output_length(s.features.shape[-2]) for s in samples])
    return max(1, int((soft * width <= MAX_KEPT).sum()))


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


def _means(moments: Moments) -> Floats:
    """Mean row of each utterance (U, C)."""
    return moments.sums / np.maximum(moments.counts, 1)[:, None]


def mean_frame(sample: shards.Sample) -> np.ndarray:
    """(d,) float32: over time, and over layers where the shards hold several."""
    frames = sample.features.astype(np.float32)
    return frames.reshape(-1, frames.shape[-1]).mean(axis=0)


def mispaired(samples: Sequence[shards.Sample]) -> list[shards.Sample]:
    """Each transcript with the audio of one far away in length: the control of the gap itself.

    Far, because the gap's own wrong audio is a neighbour in length: were both near, the wrong
    audio of a wrong pair would often be the right one. Empty for fewer than four utterances.
    """
    n = len(samples)
    if n < 4:
        return []
    order = sorted(range(n), key=lambda i: (samples[i].features.shape[-2], samples[i].meta["id"]))
    return [
        replace(samples[i], features=samples[order[(place + n // 2) % n]].features)
        for place, i in enumerate(order)
    ]
