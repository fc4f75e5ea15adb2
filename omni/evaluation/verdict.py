"""What the figures of an evaluation mean, in one line of words.

Must not know how they were computed; thresholds stand here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any

# A gap this small (nats a token) is no listening, whatever its interval says.
SILENT_GAP = 0.02
# SLAM-ASR and tiny-audio both describe it: accuracy creeps for long, then WER falls at once.
CLIFF_WER = 0.5
CLIFF_ACCURACY = 0.8
SILENT_RATE = 0.9  # of noise that should be met with silence
OVERFIT_NATS = 0.7


def verdict(figures: Mapping[str, Any], train_loss: float | None = None) -> str:
    """Whether the LM listens, is still on the plateau, or has crossed the cliff; what to try.

    Args:
        figures: as `omni.evaluation.evaluate.evaluate` returns them.
        train_loss: of the last steps in nats a token, if known: tells overfitting.
    """
    if "empty_rate" in figures and "wer" not in figures:
        share = figures["empty_rate"]
        hint = "" if share >= SILENT_RATE else ". Train on noise too: omni-extract --split noise"
        return f"nothing is said here; the LM says nothing to {share:.0%} of it{hint}"
    if "gap_shuffled" not in figures:
        return "can't tell whether it listens: at least two different transcripts are needed"
    gap, low = figures["gap_shuffled"], figures["intervals"]["gap_shuffled"][0]
    if low <= 0 or gap < SILENT_GAP:
        return (
            f"does not listen: another utterance's audio serves as well (gap {gap:.2f} nats). "
            "Train longer; then check that texts belong to their audio, and try --lr 3e-4 to 2e-3"
        )
    crossed = figures["token_accuracy"] >= CLIFF_ACCURACY
    if "wer" in figures:
        crossed = figures["wer"] <= CLIFF_WER
    hint = ""
    if train_loss is not None and figures["ce"] - train_loss > OVERFIT_NATS:
        hint = (
            f" Overfit (training {train_loss:.2f}, held out {figures['ce']:.2f} nats): more data, "
            "more voices, or more of --stretch and --noise"
        )
    wer = f", WER {figures['wer']:.1%}" if "wer" in figures else ""
    facts = f"gap {gap:.2f} nats, token accuracy {figures['token_accuracy']:.1%}{wer}"
    if crossed:
        return f"listens, and has crossed the cliff ({facts}).{hint}"
    return f"listens, but is still on the plateau ({facts}).{hint or ' Train longer: it often falls at once'}"


def cascade_verdict(figures: Mapping[str, Any]) -> str:
    """Whether the words are in the features at all: the run's WER beside the cascade's.

    Args:
        figures: with `wer` and `wer_cascade`.
    """
    wer, plain = figures["wer"], figures["wer_cascade"]
    facts = f"from the same features Whisper's own decoder has WER {plain:.1%}, the run {wer:.1%}"
    if wer <= plain:
        return f"the LM hears no less than plain recognition: {facts}"
    if plain > CLIFF_WER:
        return f"the features are hard to read for anybody: {facts}"
    return f"the words are in the features, and the projector or the LM loses them: {facts}"
