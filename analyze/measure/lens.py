"""Inside the LM: the residual stream at audio, text and answer positions, layer by layer.

The rows are those of training, from `omni.bridge.prompt`: the audio of a projector, another
utterance's audio, or the transcript's own tokens in the audio's place (what ideal audio would
be). Logit lens after nostalgebraist 2020: the LM's final norm and read-out on each layer.
Must not know about numbers, pictures or pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from analyze.measure.formulas import Floats, Ints
from analyze.measure.sample import BATCH, Progress, silent
from omni.bridge.projector import Projector, project
from omni.bridge.prompt import Row, as_soft, build_row, collate
from omni.bridge.turns import Template
from omni.formats import shards
from omni.nanochat import NanoChat, Tokenizer
from omni.nanochat.layers import norm

MAX_UTTERANCES = 64  # a whole forward pass each, four ways
POINTS_AN_UTTERANCE = 20  # positions whose vectors are kept for the pictures


@dataclass(frozen=True)
class Lens:
    """What the layers held for U utterances; layer 0 is the LM's input, the last its output.

    settled: (U,) sum over answer tokens of the first layer from which on the lens has the token
    right (n_layers + 1: never). correct: (U, layers) answer tokens right at each layer;
    n_answer (U,). audio_hits: (U, layers) audio positions whose top token stands in the
    transcript; n_audio (U,). states: for each layer (P, C), the stream at evenly spaced
    audio positions, scaled to unit RMS; utterance (P,) and step (P,).
    """

    n_layers: int
    settled: Floats
    correct: Floats
    n_answer: Floats
    audio_hits: Floats
    n_audio: Floats
    states: list[Floats]
    utterance: Ints
    step: Ints


@torch.inference_mode()
def look(
    lm: NanoChat,
    tok: Tokenizer,
    samples: Sequence[shards.Sample],
    template: Template,
    projector: Projector | None,
    audio_of: Sequence[int] | None = None,
    progress: Progress = silent,
    most: int = BATCH,
    stage: str = "look inside",
) -> Lens:
    """Run the first `MAX_UTTERANCES` utterances through the LM and read every layer.

    Args:
        projector: None puts the transcript's own tokens in the audio's place.
        audio_of: index of the utterance whose audio each one gets; None: its own.
        most: utterances at once.
    """
    batch = min(BATCH, most)
    n = min(len(samples), MAX_UTTERANCES)
    parts: list[_Read] = []
    for start in range(0, n, batch):
        at = range(start, min(start + batch, n))
        audio = [samples[i if audio_of is None else audio_of[i]] for i in at]
        rows = _rows(lm, tok, [samples[i] for i in at], audio, template, projector)
        parts += _read(lm, tok, rows, [str(samples[i].meta["text_norm"]) for i in at])
        progress(stage, at[-1] + 1, n)
    n_layers = lm.config.n_layer
    return Lens(
        n_layers=n_layers,
        settled=np.array([_settled(p.right, n_layers).sum() for p in parts], float),
        correct=np.array([p.right.sum(0) for p in parts], float),
        n_answer=np.array([len(p.right) for p in parts], float),
        audio_hits=np.array([p.hits.sum(0) for p in parts], float),
        n_audio=np.array([len(p.hits) for p in parts], float),
        states=[np.concatenate([p.states[k] for p in parts]) for k in range(n_layers + 1)],
        utterance=np.repeat(np.arange(n), [len(p.step) for p in parts]),
        step=np.concatenate([p.step for p in parts]),
    )


class _Read(NamedTuple):
    """Of one row: right (answer tokens, layers) and hits (audio positions, layers), both bool;
    states by layer (P, C) at the audio positions `step` (P,)."""

    right: NDArray[np.bool_]
    hits: NDArray[np.bool_]
    states: list[Floats]
    step: Ints


def _rows(
    lm: NanoChat,
    tok: Tokenizer,
    samples: Sequence[shards.Sample],
    audio: Sequence[shards.Sample],
    template: Template,
    projector: Projector | None,
) -> list[Row]:
    """Training rows of a batch, with `audio` (or the transcript itself) in the audio's place."""
    texts = [str(s.meta["text_norm"]) for s in samples]
    if projector is None:
        soft = as_soft(lm, [tok.encode(text) for text in texts])
    else:
        soft = project(projector, [s.features for s in audio], lm.device)
    rows = []
    for i, length in enumerate(soft.lengths.tolist()):
        values = None if soft.ve_rows is None else soft.ve_rows[i, :length]
        own = soft.rows[i, :length]
        heard = projector is not None
        rows.append(build_row(lm, tok, own, values, texts[i], template, samples[i].key, heard))
    return rows


def _read(lm: NanoChat, tok: Tokenizer, rows: Sequence[Row], texts: Sequence[str]) -> list[_Read]:
    """Run a batch of rows and read out every layer at the audio and the answer positions."""
    batch = collate(rows)
    layers = lm.hidden_states(batch.rows, batch.ve_rows, heard=batch.heard)
    # The stream after the last layer and the one the read-out sees differ by backout alone:
    # keep the latter, so that the last point of a curve is the model's own answer.
    layers = [*layers[: lm.config.n_layer], layers[-1]]
    found = []
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        answer = (row.targets >= 0).nonzero()[:, 0]
        wanted = torch.tensor(sorted(set(tok.encode(text))), device=lm.device)
        kept = np.unique(np.linspace(0, row.n_soft - 1, POINTS_AN_UTTERANCE).round().astype(int))
        states, right, hits = [], [], []
        for x in layers:
            audio = x[i, row.audio_start : row.audio_start + row.n_soft].float()
            right.append((lm.read_out(x[i, answer]).argmax(-1) == row.targets[answer]).cpu())
            hits.append(torch.isin(lm.read_out(audio.to(x.dtype)).argmax(-1), wanted).cpu())
            states.append(norm(audio[kept]).cpu().numpy())
        found.append(
            _Read(torch.stack(right, 1).numpy(), torch.stack(hits, 1).numpy(), states, kept)
        )
    return found


def _settled(right: NDArray[np.bool_], n_layers: int) -> Ints:
    """First layer from which on each token (rows of `right`, by layer) is right to the end."""
    from_end = np.cumprod(right[:, ::-1], axis=1).sum(1)  # layers right, counted from the last
    return n_layers + 1 - from_end
