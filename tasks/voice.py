"""Questions about the voice that a corpus's own labels answer: the speaker's sex, and who it is.

Must not know the words that are said.
"""

from collections.abc import Iterable

from tasks.content import Draft
from tasks.dice import Dice
from tasks.sources import Heard
from tasks.wordings import VOICE

_SEXES = {"F": "a woman", "M": "a man"}


class Readers:
    """The speakers of a corpus by sex."""

    def __init__(self, heard: Iterable[Heard]) -> None:
        self._sex = {h.speaker: h.sex for h in heard if h.speaker}

    def others(self, speaker: str, dice: Dice) -> list[str]:
        """Three other speakers, of the same sex where there are so many: else sex alone would tell."""
        rest = sorted(set(self._sex) - {speaker})
        same = [other for other in rest if self._sex[other] == self._sex[speaker]]
        return dice.sample(same if len(same) >= 3 else rest, 3)


def sex(heard: Heard) -> Draft | None:
    """A man or a woman: two options, so an open question."""
    return Draft("", _SEXES[heard.sex]) if heard.sex in _SEXES else None


def speaker(heard: Heard, readers: Readers, dice: Dice) -> Draft | None:
    """Which of four readers. Only for tables that train: nobody knows an unheard one's name."""
    if not heard.speaker:
        return None
    others = readers.others(heard.speaker, dice)
    if len(others) < 3:
        return None
    return Draft("", _name(heard.speaker), tuple(_name(other) for other in others))


def voice_kinds(role: str) -> dict[str, tuple[str, ...]]:
    """By kind its wordings."""
    kinds = {f"voice/{kind}": VOICE[kind].of(role) for kind in VOICE}
    return {k: w for k, w in kinds.items() if role == "train" or k != "voice/speaker"}


def _name(speaker: str) -> str:
    return f"reader {speaker}"
