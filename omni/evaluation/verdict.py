"""What the figures of an evaluation mean, in one line of words.

Must not know how they were computed; thresholds stand here and nowhere else.
"""

from collections.abc import Sequence

from omni.evaluation.choice_figures import CHANCE, DEAF, NEEDS, ChoiceFigures, GroupFigures
from omni.evaluation.figures import Figures, headline

# A gap this small (nats a token) is no listening, whatever its interval says.
SILENT_GAP = 0.02
# SLAM-ASR and tiny-audio both describe it: accuracy creeps for long, then WER falls at once.
CLIFF_WER = 0.5
CLIFF_ACCURACY = 0.8
SILENT_RATE = 0.9  # of noise that should be met with silence
OVERFIT_NATS = 0.7
SURE = 0.01  # McNemar's p from which on a control may be as good
_INSTEAD = {"blind": "no audio", "shuffled": "another utterance's audio", "noise": "noise"}


def verdict(figures: Figures, train_loss: float | None = None) -> str:
    """Whether the LM listens, is still on the plateau, or has crossed the cliff; what to try.

    Args:
        figures: as `omni.evaluation.evaluate.evaluate` returns them.
        train_loss: of the last steps in nats a token, if known: tells overfitting.
    """
    rate = headline(figures)
    if "empty_rate" in figures and rate is None:
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
    if rate is not None:
        crossed = rate.rate <= CLIFF_WER
    hint = ""
    if train_loss is not None and figures["ce"] - train_loss > OVERFIT_NATS:
        hint = (
            f" Overfit (training {train_loss:.2f}, held out {figures['ce']:.2f} nats): more data, "
            "more voices, or more of --stretch and --noise"
        )
    written = f", {rate.name} {rate.rate:.1%}" if rate is not None else ""
    facts = f"gap {gap:.2f} nats, token accuracy {figures['token_accuracy']:.1%}{written}"
    if crossed:
        return f"listens, and has crossed the cliff ({facts}).{hint}"
    return f"listens, but is still on the plateau ({facts}).{hint or ' Train longer: it often falls at once'}"


def cascade_verdict(figures: Figures) -> str | None:
    """Whether the words are in the features at all: the run's WER (or CER) beside the cascade's.

    None where one of the two is missing.
    """
    found = headline(figures)
    if found is None or found.cascade is None:
        return None
    name, own, plain = found.name, found.rate, found.cascade
    facts = (
        f"from the same features Whisper's own decoder has {name} {plain:.1%}, the run {own:.1%}"
    )
    if own <= plain:
        return f"the LM hears no less than plain recognition: {facts}"
    if plain > CLIFF_WER:
        return f"the features are hard to read for anybody: {facts}"
    return f"the words are in the features, and the projector or the LM loses them: {facts}"


def shows_hearing(group: GroupFigures) -> bool:
    """Whether four-option questions show that the LM hears (`choice_verdict`)."""
    return not _doubt(group)


def choice_verdict(group: GroupFigures) -> str:
    """What four-option questions show, in a sentence: that the LM hears, or nothing of the kind.

    It is shown where chance and every control in which nothing can be heard lie below the interval, and
    McNemar's p is below `SURE` for each of them. Reading (cascade, transcript) is no such control.
    """
    low, high = group["interval"]
    facts = f"{group['accuracy']:.1%} right ({low:.1%} to {high:.1%}) of {group['n']:,} questions"
    if doubt := _doubt(group):
        return f"not shown to hear: {facts}, {doubt}"
    deaf = {name: c for name, c in group["controls"].items() if name in DEAF}
    best = max(deaf, key=lambda name: deaf[name]["accuracy"])
    p = max(control["mcnemar_p"] for control in deaf.values())
    shown = f"{p:.3f}" if p >= 0.001 else "below 0.001"
    return f"hears: {facts}, and {deaf[best]['accuracy']:.1%} at best without hearing ({_INSTEAD[best]}; McNemar's p {shown})"


def add_choice_verdicts(figures: ChoiceFigures) -> None:
    """Each group's verdict, in place."""
    groups = [figures["all"], *figures["kinds"].values()]
    groups += [figures[need] for need in NEEDS if need in figures]
    for group in groups:
        group["verdict"] = choice_verdict(group)


def _doubt(group: GroupFigures) -> str:
    """Why the figures show no hearing; "" where they do."""
    low = group["interval"][0]
    deaf = {name: c for name, c in group["controls"].items() if name in DEAF}
    if not deaf:
        return "and no control in which nothing can be heard was measured"
    if low <= CHANCE:
        return f"which chance gives too ({CHANCE:.0%})"
    best = max(deaf, key=lambda name: deaf[name]["accuracy"])
    if deaf[best]["accuracy"] >= low:
        return f"and {_INSTEAD[best]} serves as well ({deaf[best]['accuracy']:.1%})"
    least = max(deaf, key=lambda name: deaf[name]["mcnemar_p"])
    if deaf[least]["mcnemar_p"] >= SURE:
        p = deaf[least]["mcnemar_p"]
        return (
            f"and with {_INSTEAD[least]} it may be by chance that fewer are (McNemar's p {p:.3f})"
        )
    return ""


def selection_note(chosen_by: str, clean: Sequence[str]) -> str:
    """That a split which chose the checkpoint can't judge it as strictly as the others.

    Args:
        chosen_by: the split whose CE is lowest at this checkpoint.
        clean: the other splits that evaluate.
    """
    others = f"had no say: {', '.join(clean)}" if clean else "no other split judges this run"
    return (
        f"{chosen_by} chose this checkpoint among others, so its figures are a little too good; "
        f"{others}"
    )
