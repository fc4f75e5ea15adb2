"""The table of numbers: each with its interval, and the same under two controls.

Controls: the untrained projector (its weights before the first step) on the same audio, and
shuffled pairs (the trained projector's audio beside another utterance's transcript). Pairing
plays no part in the modality gap and the domain AUC: they have no second control.
Must not know about pictures or pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyze.measure import formulas as metrics
from analyze.measure.alignment import order_advantage
from analyze.measure.formulas import Floats, Ints, jackknife
from analyze.measure.lens import Lens
from analyze.measure.sample import Audio, Text
from omni.evaluation.figures import Figures, Interval, Unit, headline
from omni.evaluation.intervals import UNDEFINED, Estimate, bootstrap, ratio

MAX_CKA = 500  # utterances; its cost grows with their cube
MAX_PATHS = 500  # utterances whose best paths are sought, in plain Python


@dataclass(frozen=True)
class Number:
    """One row of the table. `n` utterances; `chance` where blind luck is known by permutation.

    A control is None where there is no such thing: no value rows before training, a number in
    which pairing plays no part. `better`: +1 higher, -1 lower, 0 neither is better in itself. `percent`: shown times 100.
    """

    key: str
    name: str
    reading: str
    better: int
    percent: bool
    n: int
    trained: Estimate
    untrained: Estimate | None
    shuffled: Estimate | None
    chance: float | None = None
    unit: Unit = "words"


@dataclass(frozen=True)
class Evidence:
    """What was measured of one run; built by `report.examine`.

    evaluated: what `omni.evaluation.evaluate.evaluate` returned for "trained", "untrained" and, where
    there are enough utterances, "shuffled".
    partner: (U,) the wrong transcript of each utterance. labels: (U,) equal for equal sentences.
    cascade: figures of the leading utterances with Whisper's own transcripts, where they could be had.
    frame_means: (U, d) mean encoder frame of each utterance: what no projector has touched.
    """

    text: Text
    trained: Audio
    untrained: Audio
    partner: Ints
    labels: Ints
    frame_means: Floats
    evaluated: Mapping[str, Figures]
    lenses: dict[str, Lens]
    seed: int
    cascade: Figures | None = None


def table(evidence: Evidence) -> list[Number]:
    """Every number of one run, the most telling first."""
    return [
        *_listening(evidence),
        *_cascade(evidence),
        *_retrieval(evidence),
        _cka(evidence),
        *_nearest(evidence),
        *_path(evidence),
        *_lens(evidence),
        _gap(evidence),
        _auc(evidence),
    ]


RATES: dict[Unit, str] = {"words": "Word", "characters": "Character"}
READINGS = {
    "gap_shuffled": "How much cheaper each token of the answer is with the right audio than with another utterance's, in nats: 0 is deaf, 1 and more is listening.",
    "wer": "Words wrong in a hundred when the model writes down what it hears: 0 is perfect; above 100 it invents.",
    "wer_cascade": "What plain recognition gets from the very same features of the leading utterances, by Whisper's own decoder: a run far above it loses words that are there; where both are high, the features are hard to read for anybody.",
    "token_accuracy": "Share of the transcript's tokens the model puts first when it is given the tokens before: an LM's guessing alone is well above 0.",
    "retrieval_audio_text_1": "How often an utterance's mean soft token is nearest to its own transcript's mean embedding: compare with chance.",
    "retrieval_audio_text_5": "The same, own transcript among the nearest five.",
    "retrieval_text_audio_1": "How often a transcript is nearest to its own audio: compare with chance.",
    "retrieval_text_audio_5": "The same, own audio among the nearest five.",
    "cka": "Utterances that sound alike have words in common, so the encoder's frames have some of the text's shape before any training. How much more the soft tokens have: 0 is none, 1 less the encoder's own is all.",
    "nearest_precision": "Share of soft tokens whose nearest text token stands in the transcript: high means audio lands on its own words; low does not mean deaf.",
    "nearest_recall": "Share of the transcript's tokens that some soft token lands on.",
    "value_retrieval": "The same by the value-embedding rows, the LM's second entrance for audio. An untrained projector has none.",
    "value_precision": "Precision read from the value-embedding rows: audio may land on its words here and nowhere else.",
    "value_recall": "Recall read from the value-embedding rows.",
    "path": "Do soft tokens meet the transcript's tokens in the order spoken? Cosine gained over the same tokens in random order: 0 is no order.",
    "value_path": "The same order score by the value-embedding rows.",
    "lens_depth": "The layer from which on the LM's own read-out has the right next token, mean over the answer: lower is earlier; one more than its layers means never.",
    "lens_audio": "Best layer's share of audio positions at which the read-out names a token of the transcript.",
    "modality_gap": "Distance of the centres of audio and text over the spread within: 0 is one place; above 1 they stand apart. Standing apart is no fault by itself.",
    "domain_auc": "Can a plane tell audio from text? 0.5 is mixed, 1 is separable. A model can listen at 1.",
}


def _number(
    key: str,
    name: str,
    n: int,
    estimates: Sequence[Estimate | None],
    better: int = 1,
    percent: bool = False,
    chance: float | None = None,
) -> Number:
    trained, untrained, shuffled = estimates
    return Number(
        key, name, READINGS[key], better, percent, n,
        trained or UNDEFINED, untrained, shuffled, chance,
    )  # fmt: skip


def _listening(e: Evidence) -> list[Number]:
    """Gap, WER and token accuracy: evaluate's own figures and intervals."""

    found = [e.evaluated.get(c) for c in ("trained", "untrained", "shuffled")]
    own = e.evaluated["trained"]
    n = own["n"]
    unit = own.get("unit", "words")
    return [
        _number("gap_shuffled", "Shuffled-audio gap (nats a token)", n, [_gap_of(f) for f in found]),
        replace(
            _number("wer", f"{RATES[unit]} error rate", own["n_decoded"],
                    [_rate_of(f) for f in found], -1, True),
            unit=unit,
        ),
        _number("token_accuracy", "Token accuracy, teacher-forced", n,
                [_accuracy_of(f) for f in found], 1, True),
    ]  # fmt: skip


def _cascade(e: Evidence) -> list[Number]:
    """The error rate of Whisper's own decoder, where it could read the features."""
    found = None if e.cascade is None else headline(e.cascade)
    if e.cascade is None or found is None or found.cascade is None:
        return []
    intervals = e.cascade["intervals"]
    interval = intervals["wer_cascade"] if found.key == "wer" else intervals["cer_cascade"]
    unit: Unit = "words" if found.key == "wer" else "characters"
    n = sum("cascade" in u for u in e.cascade["utterances"])
    name = f"{RATES[unit]} error rate of Whisper's own decoder"
    return [
        _number("wer_cascade", name, n, [_estimate(found.cascade, interval), None, None], -1, True)
    ]


def _gap_of(figures: Figures | None) -> Estimate:
    if figures is None or "gap_shuffled" not in figures:
        return UNDEFINED
    return _estimate(figures["gap_shuffled"], figures["intervals"]["gap_shuffled"])


def _rate_of(figures: Figures | None) -> Estimate:
    """The error rate that the split is judged by: of words, or of characters."""
    found = None if figures is None else headline(figures)
    if figures is None or found is None:
        return UNDEFINED
    return _estimate(found.rate, figures["intervals"][found.key])


def _accuracy_of(figures: Figures | None) -> Estimate:
    if figures is None:
        return UNDEFINED
    return _estimate(figures["token_accuracy"], figures["intervals"]["token_accuracy"])


def _estimate(value: float, interval: Interval) -> Estimate:
    return Estimate(float(value), float(interval[0]), float(interval[1]))


def _retrieval(e: Evidence) -> list[Number]:
    """Centred retrieval between utterance means, both ways, k = 1 and 5; R@1 by value rows."""
    numbers = [
        _retrieved(e, f"retrieval_{way}_{k}", e.trained, e.untrained, e.text, way, k)
        for way in ("audio_text", "text_audio")
        for k in (1, 5)
    ]
    if e.trained.value is not None and e.text.value is not None:
        numbers.append(
            _retrieved(
                e, "value_retrieval", e.trained.value, e.untrained.value, e.text.value,
                "audio_text", 1,
            )
        )  # fmt: skip
    return numbers


def _retrieved(
    e: Evidence, key: str, trained: Audio, untrained: Audio | None, text: Text, way: str, k: int
) -> Number:
    """R@k of one kind of rows, one way, with its permutation baseline."""
    n = len(e.labels)
    name = f"Retrieval R@{k}, {way.replace('_', ' to ')}"
    name += ", value rows" if key.startswith("value") else ""
    if n <= k:
        return _number(key, name, n, [UNDEFINED] * 3, 1, True)
    found = metrics.centred_cosine(trained.means, text.means)
    tables = [found if way == "audio_text" else found.T]
    tables.append(tables[0][:, e.partner])
    if untrained is not None:
        found = metrics.centred_cosine(untrained.means, text.means)
        tables.insert(1, found if way == "audio_text" else found.T)
    hits = [metrics.retrieval_hits(table, e.labels, k) for table in tables]
    estimates: list[Estimate | None]
    estimates = [bootstrap(ratio(h, np.ones(n)), n, seed=e.seed) for h in hits]
    if untrained is None:
        estimates.insert(1, None)
    draws = int(np.clip(10_000 // n, 5, 50))
    chance, _ = metrics.permutation_baseline(tables[0], e.labels, k, draws=draws, seed=e.seed)
    return _number(key, name, n, estimates, 1, True, chance)


def _cka(e: Evidence) -> Number:
    """Debiased linear CKA of utterance means with their transcripts', less the raw frames' own.

    CKA is blind to rotation, so it credits a projector with whatever shape the encoder had.
    """
    n = min(len(e.labels), MAX_CKA)
    # A partner beyond the cut would leave a row without its pair.
    partner = np.where(e.partner[:n] < n, e.partner[:n], (np.arange(n) + n // 2) % n)

    def gained(audio: Audio, to: Ints) -> Estimate:
        def statistic(kept: Ints) -> float:
            text = e.text.means[to[kept]]
            before = metrics.linear_cka(e.frame_means[kept], text)
            return metrics.linear_cka(audio.means[kept], text) - before

        return jackknife(statistic, n, seed=e.seed)

    own = np.arange(n)
    estimates = [gained(e.trained, own), gained(e.untrained, own), gained(e.trained, partner)]
    encoder = metrics.linear_cka(e.frame_means[:n], e.text.means[:n])
    own_shape = f"'s {encoder:.2f}" if np.isfinite(encoder) else ""  # a few utterances have none
    return _number("cka", f"Linear CKA gained over the encoder{own_shape}", n, estimates)


def _nearest(e: Evidence) -> list[Number]:
    """Precision and recall of the nearest token, by input rows and by value rows."""
    numbers = _overlap(e, "nearest", "", e.trained, e.untrained)
    if e.trained.value is not None:
        numbers += _overlap(e, "value", ", value rows", e.trained.value, e.untrained.value)
    return numbers


def _overlap(
    e: Evidence, key: str, suffix: str, trained: Audio, untrained: Audio | None
) -> list[Number]:
    n = trained.detail

    def counts(audio: Audio, to: Ints) -> Floats:
        return np.array(
            [
                metrics.token_overlap(audio.nearest[audio.of(u)], e.text.ids[to[u]])
                for u in range(n)
            ],
            float,
        )

    own = np.arange(n)
    found = [
        counts(trained, own),
        None if untrained is None else counts(untrained, own),
        counts(trained, e.partner),
    ]
    numbers = []
    for name, hit, of in (("precision", 0, 1), ("recall", 2, 3)):
        estimates = [
            None if c is None else bootstrap(ratio(c[:, hit], c[:, of]), n, seed=e.seed)
            for c in found
        ]
        numbers.append(
            _number(f"{key}_{name}", f"Nearest-token {name}{suffix}", n, estimates, 1, True)
        )
    return numbers


def _path(e: Evidence) -> list[Number]:
    """Monotone alignment-path score, by input rows and by value rows."""
    numbers = [_ordered(e, "path", "", e.trained, e.untrained, e.text)]
    if e.trained.value is not None and e.text.value is not None:
        found = (e.trained.value, e.untrained.value, e.text.value)
        numbers.append(_ordered(e, "value_path", ", value rows", *found))
    return numbers


def _ordered(
    e: Evidence, key: str, suffix: str, trained: Audio, untrained: Audio | None, text: Text
) -> Number:
    own = np.arange(min(trained.detail, MAX_PATHS))
    estimates: list[Estimate | None] = []
    for audio, to in ((trained, own), (untrained, own), (trained, e.partner[own])):
        if audio is None:
            estimates.append(None)
            continue
        scores = path_scores(audio, text, to, e.seed)
        scores = scores[np.isfinite(scores)]
        estimates.append(
            bootstrap(ratio(scores, np.ones(len(scores))), len(scores), seed=e.seed)
            if len(scores)
            else UNDEFINED
        )
    return _number(key, f"Monotone alignment-path score{suffix}", len(own), estimates)


def path_scores(audio: Audio, text: Text, to: Ints, seed: int) -> Floats:
    """Order advantage of each utterance u against the transcript `to[u]`; NaN if too short."""
    rng = np.random.default_rng(seed)
    return np.array(
        [order_advantage(similarity(audio, text, u, int(v)), rng) for u, v in enumerate(to)]
    )


def similarity(audio: Audio, text: Text, utterance: int, transcript: int) -> Floats:
    """Centred cosines (n soft, m tokens) of one utterance's audio and one transcript."""
    weights = np.ones(len(audio.n_soft))
    return metrics.centred_cosine(
        audio.rows[audio.of(utterance)],
        text.table[text.ids[transcript]].astype(np.float32),
        audio.moments.centre_and_variance(weights)[0],
        text.moments.centre_and_variance(weights)[0],
    )


def _lens(e: Evidence) -> list[Number]:
    """Depth of the right answer, and what is read at audio positions."""
    order = [e.lenses[c] for c in ("trained", "untrained", "shuffled")]
    n = len(order[0].settled)
    depth = [bootstrap(ratio(x.settled, x.n_answer), n, seed=e.seed) for x in order]
    best = int(order[0].audio_hits.sum(0).argmax())
    read = [bootstrap(ratio(x.audio_hits[:, best], x.n_audio), n, seed=e.seed) for x in order]
    layers = order[0].n_layers
    return [
        _number("lens_depth", f"Logit-lens depth (of {layers} layers)", n, depth, -1),
        _number("lens_audio", f"Transcript tokens read at audio positions (layer {best})", n, read,
                1, True),
    ]  # fmt: skip


def _gap(e: Evidence) -> Number:
    """Modality gap; by the jackknife, since resampling can only push two means further apart."""
    n = len(e.labels)

    def gap(audio: Audio) -> Estimate:
        of_weights = metrics.modality_gap(audio.moments, e.text.moments)
        found = jackknife(
            lambda kept: of_weights(np.bincount(kept, minlength=n).astype(float)), n, seed=e.seed
        )
        return Estimate(found.value, max(found.low, 0.0), found.high)

    return _number("modality_gap", "Modality gap", n, [gap(e.trained), gap(e.untrained), None], 0)


def _auc(e: Evidence) -> Number:
    """Probe on as many soft tokens as text tokens, at most 2,500 of each."""
    n = e.trained.detail
    rng = np.random.default_rng(e.seed)
    size = min(len(e.trained.rows), len(e.text.rows), 2500)
    a = np.sort(rng.choice(len(e.trained.rows), size, replace=False))
    t = np.sort(rng.choice(len(e.text.rows), size, replace=False))
    estimates = [
        bootstrap(
            metrics.domain_auc(
                x.rows[a], e.text.rows[t], x.utterance[a], e.text.utterance[t]
            ),
            len(e.labels), draws=200, seed=e.seed,
        )
        for x in (e.trained, e.untrained)
    ]  # fmt: skip
    return _number("domain_auc", "Domain AUC", n, [*estimates, None], 0)
