"""The figures of a projector: does the frozen LM listen, and what does it write?

One CE says little: an LM guesses well from text alone. So the same transcripts are scored with
the right audio, somebody else's, silence, mean audio and none; the gaps are what the audio adds.
The trainer logs these figures, omni-eval and the report print the same ones.

Must not know where samples come from or how a projector is trained.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from omni.bridge.frames import derangement
from omni.bridge.losses import per_row, token_losses
from omni.bridge.projector import Projector, Soft, project
from omni.bridge.prompt import build_batch
from omni.bridge.turns import Template
from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.errors import OmniError
from omni.evaluation import scoring
from omni.evaluation.decode import decode
from omni.evaluation.figures import ENGLISH, Example, Figures, Intervals, Unit, UtteranceFigures
from omni.evaluation.intervals import ratio_interval
from omni.evaluation.share import ALONE, Share, in_order
from omni.formats.shards import Sample
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

CONDITIONS = ("right", "shuffled", "zero", "mean", "none")
_CE: dict[str, Literal["ce_shuffled", "ce_zero", "ce_mean", "ce_none"]] = {
    "shuffled": "ce_shuffled", "zero": "ce_zero", "mean": "ce_mean", "none": "ce_none",
}  # fmt: skip
_GAP: dict[str, Literal["gap_shuffled", "gap_zero", "gap_mean", "gap_none"]] = {
    "shuffled": "gap_shuffled", "zero": "gap_zero", "mean": "gap_mean", "none": "gap_none",
}  # fmt: skip


def evaluate(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    samples: Sequence[Sample],
    template: Template,
    batch_size: int = 32,
    n_examples: int = 8,
    decode_limit: int | None = None,
    language: str = ENGLISH,
    rate: float = WHISPER_FRAMES_PER_SECOND,
    share: Share = ALONE,
) -> Figures:
    """Score a projector on held-out samples; deterministic.

    Args:
        batch_size: utterances a forward pass, and decoded together.
        decode_limit: transcribe at most so many utterances, evenly spaced (0: none, None: all).
        language: of the transcripts: how they are normalised (`omni.evaluation.text`).
        rate: frames a second.
        share: of the batches; whatever it is, all who share get the figures of all samples, those of
            the mean audio within rounding.

    Returns:
        n, n_tokens: utterances and target tokens scored;
        token_accuracy: teacher-forced, 0 to 1;
        ce, ce_shuffled, ce_zero, ce_mean, ce_none: nats a target token;
        gap_shuffled, gap_zero, gap_mean, gap_none: those minus `ce`;
        bits_per_byte: of the transcript, right audio, its end token included;
        wer, wer_s, wer_d, wer_i, cer: rates of greedy decodes (wer = s + d + i); n_decoded;
        unit: what most references count, "words" or, in scripts without blanks, "characters":
            then cer stands alone;
        empty_rate, repetition_rate: share of decodes that are empty, or loop;
        intervals: 95 % bootstrap intervals of ce, gap_shuffled, token_accuracy, wer or cer;
        examples: dicts of id, reference, hypothesis, wer; worst, median and best among them;
        utterances: one per sample, in order of id.
        A figure that can't be had is missing: shuffled with one utterance, WER without decodes,
        WER and bits per byte of noise, in which nothing is said.

    Raises:
        OmniError: no samples.
    """
    if not samples:
        raise OmniError("no utterances to evaluate", mend="choose another split of the shards")
    order = in_order(samples)
    training = projector.training
    projector.eval()
    with torch.inference_mode():
        scores = _score_conditions(lm, tok, projector, order, template, batch_size, share)
        mine = _decoded_here(len(order), decode_limit, batch_size, share)
        heard = decode(
            lm, tok, projector, [order[i].features for i in mine], template, batch_size, rate=rate
        )
    projector.train(training)
    texts = {i: tok.decode(ids).strip() for i, ids in zip(mine, heard, strict=True)}
    decoded: dict[int, str] = {}
    for part in share.gather(texts):
        decoded |= part
    utterances = [_utterance(i, s, scores, decoded.get(i), language) for i, s in enumerate(order)]
    figures = _ce_figures(scores, utterances)
    _add_error_rates(figures, utterances)
    figures["examples"] = _examples(utterances, n_examples)
    figures["utterances"] = sorted(utterances, key=lambda u: u["id"])
    return figures


def keep_own(
    samples: Sequence[Sample], batch_size: int, decode_limit: int | None, share: Share
) -> list[Sample]:
    """The samples, with features of those alone that `evaluate` looks at in this share; the others'
    have their shape and take no memory."""
    order = in_order(samples)
    partner = derangement([s.meta["text_norm"] for s in order])
    scored = [i for at in share.batches(len(order), batch_size) for i in at]
    needed = {*scored, *(partner[i] for i in scored)}
    needed.update(_decoded_here(len(order), decode_limit, batch_size, share))
    return [s if i in needed else _without_features(s) for i, s in enumerate(order)]


def _without_features(sample: Sample) -> Sample:
    x = sample.features
    return replace(sample, features=np.broadcast_to(np.zeros((), x.dtype), x.shape))


def _decoded_here(n: int, limit: int | None, batch_size: int, share: Share) -> list[int]:
    """Places in the order of what is transcribed in this share."""
    chosen = _evenly(n, limit)
    return [chosen[i] for at in share.batches(len(chosen), batch_size) for i in at]


class _Scores(NamedTuple):
    """nll[condition] (n,), n_tokens (n,), correct (n,): sums per utterance, in `order`."""

    nll: dict[str, np.ndarray]
    n_tokens: np.ndarray
    correct: np.ndarray


def _score_conditions(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    order: Sequence[Sample],
    template: Template,
    batch_size: int,
    share: Share,
) -> _Scores:
    n = len(order)
    said = [s.meta["text_norm"] for s in order]
    partner = derangement(said)
    shuffled = any(said[partner[i]] != said[i] for i in range(n))
    names = [c for c in CONDITIONS if c != "shuffled" or shuffled]
    own = share.batches(n, batch_size)
    mean = _mean_frame(order, [i for at in own for i in at], share)
    nll = {name: np.zeros(n) for name in names}
    n_tokens, correct = np.zeros(n), np.zeros(n)
    for at in own:
        texts = [order[i].meta["text_norm"] for i in at]
        for name in names:
            features = [order[partner[i] if name == "shuffled" else i].features for i in at]
            if name == "zero":
                features = [np.zeros_like(x) for x in features]
            elif name == "mean":
                features = [np.repeat(mean, x.shape[-2], -2).astype(x.dtype) for x in features]
            soft = project(projector, features, lm.device)
            if name == "none":
                soft = Soft(soft.rows, soft.ve_rows, torch.zeros_like(soft.lengths))
            keys = [order[i].key for i in at]
            # Without audio too the row counts as one that holds some: what adapters know without it.
            batch = build_batch(lm, tok, soft, texts, template, keys, heard=True)
            losses = token_losses(lm, batch)
            nll[name][at] = per_row(losses.nll, losses.row, len(at))
            if name == "right":
                correct[at] = per_row(losses.correct.float(), losses.row, len(at))
                n_tokens[at] = per_row(torch.ones_like(losses.nll), losses.row, len(at))
    return _together(share.gather(_Scores(nll, n_tokens, correct)))


def _mean_frame(order: Sequence[Sample], mine: Sequence[int], share: Share) -> np.ndarray:
    """float64 ([L,] 1, d), over all samples; `mine` are those that this process adds up."""
    frames = sum(s.features.shape[-2] for s in order)
    added = sum(order[i].features.astype(np.float64).sum(-2, keepdims=True) for i in mine)
    return np.asarray(sum(share.gather(added)) / frames)


def _together(parts: Sequence[_Scores]) -> _Scores:
    """Every utterance was scored in one of them, and is zero in the others."""
    names = parts[0].nll
    return _Scores(
        {name: np.sum([part.nll[name] for part in parts], axis=0) for name in names},
        np.sum([part.n_tokens for part in parts], axis=0),
        np.sum([part.correct for part in parts], axis=0),
    )


def _utterance(
    i: int, sample: Sample, scores: _Scores, decoded: str | None, language: str
) -> UtteranceFigures:
    n = scores.n_tokens[i]
    said = sample.meta["text_norm"]
    out = UtteranceFigures(
        id=sample.meta["id"],
        n_tokens=int(n),
        ce=scores.nll["right"][i] / n,
        bytes=len(said.encode()),
    )
    if "shuffled" in scores.nll:
        out["ce_shuffled"] = scores.nll["shuffled"][i] / n
    if decoded is not None:
        unit, errors, chars = scoring.score(said, decoded, language)
        out["reference"], out["hypothesis"], out["unit"] = said, decoded, unit
        out["words"], out["errors"] = errors.n, [errors.s, errors.d, errors.i]
        out["chars"], out["char_errors"] = chars.n, chars.total
    return out


def _ce_figures(scores: _Scores, utterances: list[UtteranceFigures]) -> Figures:
    tokens = scores.n_tokens
    right = scores.nll["right"]
    intervals = Intervals(
        ce=ratio_interval(right, tokens), token_accuracy=ratio_interval(scores.correct, tokens)
    )
    figures = Figures(
        n=len(tokens),
        n_tokens=int(tokens.sum()),
        token_accuracy=float(scores.correct.sum() / tokens.sum()),
        ce=float(right.sum() / tokens.sum()),
        n_decoded=0,
        intervals=intervals,
        examples=[],
    )
    for name in ("shuffled", "zero", "mean", "none"):
        if name in scores.nll:
            nll = scores.nll[name]
            figures[_CE[name]] = float(nll.sum() / tokens.sum())
            figures[_GAP[name]] = float((nll - right).sum() / tokens.sum())
    n_bytes = sum(u["bytes"] for u in utterances)
    if n_bytes:
        figures["bits_per_byte"] = float(right.sum() / np.log(2) / n_bytes)
    if "shuffled" in scores.nll:
        intervals["gap_shuffled"] = ratio_interval(scores.nll["shuffled"] - right, tokens)
    return figures


def _add_error_rates(figures: Figures, utterances: list[UtteranceFigures]) -> None:
    """WER with its parts, CER, and the rates of empty and looping decodes.

    Where most references are of a script without blanks there is no WER: CER is the headline.
    Where some are, their characters count as words do.
    """
    decoded = [u for u in utterances if "hypothesis" in u]
    words = sum(u["words"] for u in decoded)
    figures["n_decoded"] = len(decoded)
    texts = [u["hypothesis"] for u in decoded]
    if texts:
        figures["empty_rate"] = sum(not text for text in texts) / len(texts)
        figures["repetition_rate"] = sum(map(scoring.is_repetitive, texts)) / len(texts)
    if not words:
        return
    figures["unit"] = main_unit(decoded)
    intervals = figures["intervals"]
    chars = [u["chars"] for u in decoded]
    char_errors = [u["char_errors"] for u in decoded]
    figures["cer"] = sum(char_errors) / sum(chars)
    if figures["unit"] == "characters":
        intervals["cer"] = ratio_interval(char_errors, chars)
        return
    figures["wer_s"], figures["wer_d"], figures["wer_i"] = (
        sum(u["errors"][k] for u in decoded) / words for k in range(3)
    )
    errors = [sum(u["errors"]) for u in decoded]
    figures["wer"] = sum(errors) / words
    intervals["wer"] = ratio_interval(errors, [u["words"] for u in decoded])


def main_unit(decoded: Sequence[UtteranceFigures]) -> Unit:
    """What most of the references that say something are counted by."""
    spoken = [u for u in decoded if u["words"]]
    by_characters = sum(u["unit"] == "characters" for u in spoken)
    return "characters" if 2 * by_characters > len(spoken) else "words"


def _examples(utterances: list[UtteranceFigures], n: int) -> list[Example]:
    """`n` decodes evenly spread from the worst to the best, so that neither is hidden."""
    decoded = [u for u in utterances if "hypothesis" in u]
    decoded.sort(key=lambda u: (-error_rate(u), u["id"]))
    return [
        Example(id=u["id"], reference=u["reference"], hypothesis=u["hypothesis"], wer=error_rate(u))
        for u in (decoded[i] for i in _evenly(len(decoded), n))
    ]


def error_rate(u: UtteranceFigures) -> float:
    """Of a decoded utterance, in its own unit; where nothing was said, the number of words heard."""
    return sum(u["errors"]) / max(u["words"], 1)


def _evenly(n: int, limit: int | None) -> list[int]:
    """At most `limit` of range(n), evenly spaced, ends included."""
    if limit is None or limit >= n:
        return list(range(n))
    return [round(i * (n - 1) / max(limit - 1, 1)) for i in range(limit)]
