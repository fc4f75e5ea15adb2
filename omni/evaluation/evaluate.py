"""The figures of a projector: does the frozen LM listen, and what does it write?

One CE says little: an LM guesses well from text alone. So the same transcripts are scored with
the right audio, somebody else's, silence, mean audio and none; the gaps are what the audio adds.
The trainer logs these figures, omni-eval and the report print the same ones.

Must not know where samples come from or how a projector is trained.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from omni.bridge.frames import derangement
from omni.bridge.losses import per_row, token_losses
from omni.bridge.projector import Projector, Soft, project
from omni.bridge.prompt import Template, build_batch
from omni.encoder import WHISPER_FRAMES_PER_SECOND
from omni.errors import OmniError
from omni.evaluation import scoring
from omni.formats.shards import Sample
from omni.nanochat.generate import generate
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

CONDITIONS = ("right", "shuffled", "zero", "mean", "none")
TOKENS_PER_SECOND = 12  # nobody speaks faster; caps a decode that would never end


def evaluate(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    samples: Sequence[Sample],
    template: Template,
    batch_size: int = 32,
    n_examples: int = 8,
    decode_limit: int | None = None,
) -> dict[str, Any]:
    """Score a projector on held-out samples; deterministic.

    Args:
        decode_limit: transcribe at most so many utterances, evenly spaced (0: none, None: all).

    Returns:
        n, n_tokens: utterances and target tokens scored;
        token_accuracy: teacher-forced, 0 to 1;
        ce, ce_shuffled, ce_zero, ce_mean, ce_none: nats a target token;
        gap_shuffled, gap_zero, gap_mean, gap_none: those minus `ce`;
        bits_per_byte: of the transcript, right audio, its end token included;
        wer, wer_s, wer_d, wer_i, cer: rates of greedy decodes (wer = s + d + i); n_decoded;
        empty_rate, repetition_rate: share of decodes that are empty, or loop;
        intervals: 95 % bootstrap intervals of ce, gap_shuffled, token_accuracy, wer;
        examples: dicts of id, reference, hypothesis, wer; worst, median and best among them;
        utterances: one dict per sample, in order of id: id, n_tokens, ce, ce_shuffled and, where
            it was decoded, reference, hypothesis, words, errors.
        A figure that can't be had is missing: shuffled with one utterance, WER without decodes,
        WER and bits per byte of noise, in which nothing is said.

    Raises:
        OmniError: no samples.
    """
    if not samples:
        raise OmniError("no utterances to evaluate", mend="choose another split of the shards")
    # Neighbours in length share a batch; the id breaks ties, so the order is always the same.
    order = sorted(samples, key=lambda s: (s.features.shape[-2], s.meta["id"]))
    training = projector.training
    projector.eval()
    with torch.inference_mode():
        scores = _score_conditions(lm, tok, projector, order, template, batch_size)
        chosen = _evenly(len(order), decode_limit)
        texts = transcribe(
            lm, tok, projector, [order[i].features for i in chosen], template, batch_size
        )
    projector.train(training)
    decoded = dict(zip(chosen, texts, strict=True))
    utterances = [_utterance(i, s, scores, decoded.get(i)) for i, s in enumerate(order)]
    figures = _ce_figures(scores, utterances)
    _add_wer_figures(figures, utterances)
    figures["examples"] = _examples(utterances, n_examples)
    figures["utterances"] = sorted(utterances, key=lambda u: u["id"])
    return figures


def transcribe(
    lm: NanoChat,
    tok: Tokenizer,
    projector: Projector,
    features: Sequence[np.ndarray],
    template: Template,
    batch_size: int = 32,
) -> list[str]:
    """Greedy transcripts of Whisper features (each (T, d) or (L, T, d)), in the given order."""
    stops = {template.end(tok), tok.special("bos")}
    texts = []
    for begin in range(0, len(features), batch_size):
        part = features[begin : begin + batch_size]
        with torch.inference_mode():
            soft = project(projector, part, lm.device)
            batch = build_batch(lm, tok, soft, [None] * len(part), template)
            cap = [8 + x.shape[-2] * TOKENS_PER_SECOND // WHISPER_FRAMES_PER_SECOND for x in part]
            ids = generate(lm, batch.rows, batch.ve_rows, batch.lengths, stops, cap)
        texts += [tok.decode([i for i in row if i not in stops]).strip() for row in ids]
    return texts


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
) -> _Scores:
    n = len(order)
    said = [s.meta["text_norm"] for s in order]
    partner = derangement(said)
    shuffled = any(said[partner[i]] != said[i] for i in range(n))
    names = [c for c in CONDITIONS if c != "shuffled" or shuffled]
    frames = sum(s.features.shape[-2] for s in order)
    mean = sum(s.features.astype(np.float64).sum(-2, keepdims=True) for s in order) / frames
    nll = {name: np.zeros(n) for name in names}
    n_tokens, correct = np.zeros(n), np.zeros(n)
    for begin in range(0, n, batch_size):
        at = range(begin, min(begin + batch_size, n))
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
            batch = build_batch(lm, tok, soft, texts, template, [order[i].key for i in at])
            losses = token_losses(lm, batch)
            nll[name][at] = per_row(losses.nll, losses.row, len(at))
            if name == "right":
                correct[at] = per_row(losses.correct.float(), losses.row, len(at))
                n_tokens[at] = per_row(torch.ones_like(losses.nll), losses.row, len(at))
    return _Scores(nll, n_tokens, correct)


def _utterance(i: int, sample: Sample, scores: _Scores, decoded: str | None) -> dict[str, Any]:
    n = scores.n_tokens[i]
    out = {"id": sample.meta["id"], "n_tokens": int(n), "ce": scores.nll["right"][i] / n}
    if "shuffled" in scores.nll:
        out["ce_shuffled"] = scores.nll["shuffled"][i] / n
    out["bytes"] = len(sample.meta["text_norm"].encode())
    if decoded is not None:
        reference, hypothesis = sample.meta["text_norm"], decoded
        pair = scoring.normalise(reference), scoring.normalise(hypothesis)
        words, chars = scoring.word_errors(*pair), scoring.char_errors(*pair)
        out |= {"reference": reference, "hypothesis": hypothesis, "words": words.n}
        out |= {"errors": [words.s, words.d, words.i], "chars": chars.n, "char_errors": chars.total}
    return out


def _ce_figures(scores: _Scores, utterances: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = scores.n_tokens
    right = scores.nll["right"]
    figures: dict[str, Any] = {"n": len(tokens), "n_tokens": int(tokens.sum())}
    figures["token_accuracy"] = float(scores.correct.sum() / tokens.sum())
    figures["ce"] = float(right.sum() / tokens.sum())
    for name, nll in scores.nll.items():
        if name != "right":
            figures[f"ce_{name}"] = float(nll.sum() / tokens.sum())
            figures[f"gap_{name}"] = float((nll - right).sum() / tokens.sum())
    n_bytes = sum(u["bytes"] for u in utterances)
    if n_bytes:
        figures["bits_per_byte"] = float(right.sum() / np.log(2) / n_bytes)
    figures["intervals"] = {
        "ce": scoring.bootstrap(right, tokens),
        "token_accuracy": scoring.bootstrap(scores.correct, tokens),
    }
    if "shuffled" in scores.nll:
        gap = scoring.bootstrap(scores.nll["shuffled"] - right, tokens)
        figures["intervals"]["gap_shuffled"] = gap
    return figures


def _add_wer_figures(figures: dict[str, Any], utterances: list[dict[str, Any]]) -> None:
    """WER with its parts, CER, and the rates of empty and looping decodes."""
    decoded = [u for u in utterances if "hypothesis" in u]
    words = sum(u["words"] for u in decoded)
    figures["n_decoded"] = len(decoded)
    texts = [u["hypothesis"] for u in decoded]
    if texts:
        figures["empty_rate"] = sum(not text for text in texts) / len(texts)
        figures["repetition_rate"] = sum(map(scoring.is_repetitive, texts)) / len(texts)
    if not words:
        return
    for k, part in enumerate("sdi"):
        figures[f"wer_{part}"] = sum(u["errors"][k] for u in decoded) / words
    errors = [sum(u["errors"]) for u in decoded]
    figures["wer"] = sum(errors) / words
    figures["cer"] = sum(u["char_errors"] for u in decoded) / sum(u["chars"] for u in decoded)
    interval = scoring.bootstrap(errors, [u["words"] for u in decoded])
    figures["intervals"]["wer"] = interval


def _examples(utterances: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """`n` decodes evenly spread from the worst to the best, so that neither is hidden."""
    decoded = [u for u in utterances if "hypothesis" in u]
    decoded.sort(key=lambda u: (-sum(u["errors"]) / max(u["words"], 1), u["id"]))
    picked = [decoded[i] for i in _evenly(len(decoded), n)]
    keys = ("id", "reference", "hypothesis")
    return [
        {k: u[k] for k in keys} | {"wer": sum(u["errors"]) / max(u["words"], 1)} for u in picked
    ]


def _evenly(n: int, limit: int | None) -> list[int]:
    """At most `limit` of range(n), evenly spaced, ends included."""
    if limit is None or limit >= n:
        return list(range(n))
    return [round(i * (n - 1) / max(limit - 1, 1)) for i in range(limit)]
