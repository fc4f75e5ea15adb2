"""Where nothing is said, that is the answer, whatever is asked for; and a word is, where one is said.

Must not know what makes the noise.
"""

from tasks.content import Draft
from tasks.corpus import Corpus
from tasks.dice import Dice
from tasks.sources import Heard
from tasks.wordings import NOTHING

NOTHING_SAID = "Nothing is said."
NONE_OF_THESE = "none of these"


def nothing_kinds(role: str) -> dict[str, tuple[str, ...]]:
    """By kind its wordings."""
    return {f"none/{kind}": NOTHING[kind].of(role) for kind in NOTHING}


def said(heard: Heard) -> Draft | None:
    """An open question to a recording without speech."""
    return None if heard.text else Draft("", NOTHING_SAID)


def which(heard: Heard, corpus: Corpus, dice: Dice) -> Draft | None:
    """Three words and "none of these", which is right where nothing is said and wrong where one is."""
    if not heard.text:
        words = corpus.some_alike(dice)
        return Draft("", NONE_OF_THESE, tuple(words)) if len(words) == 3 else None
    telling = sorted({word for word in heard.words if corpus.tells(word)})
    if not telling:
        return None
    word = dice.pick(telling)
    others = corpus.alike(word, dice, 2, without=heard.words)
    return Draft("", word, (*others, NONE_OF_THESE)) if len(others) == 2 else None
