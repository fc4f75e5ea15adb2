"""Texts made comparable before they are counted: by language, and by what their script writes.

Whisper's English normaliser serves English; its basic one takes every mark for punctuation, and so
loses the vowel signs of Hindi or Thai and cuts l'homme in two. `normalise` says what is done
instead. Must not know how edits are counted.
"""

import re
import unicodedata
from functools import cache, lru_cache

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from omni.evaluation.figures import ENGLISH, Unit

_UNKNOWN = "und"
# Scripts that write no blank between words, by the first word of their characters' Unicode names.
# Hangul, Vietnamese and Tibetan part words or syllables, and are counted by those.
_WITHOUT_BLANKS = frozenset(
    {
        "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "YI",
        "THAI", "LAO", "KHMER", "MYANMAR", "JAVANESE", "BALINESE", "TAI",
    }
)  # fmt: skip
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\uff07\u2032\u00b4`\u201b", "'"))
# Vowel points of Arabic and Hebrew, which most writers leave out, and the stretching tatweel.
_OPTIONAL = re.compile(
    "[\u0591-\u05c7\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06ed\u0640]"
)


def unit_of(text: str) -> Unit:
    """What the errors against this reference count.

    Characters, where it has more letters of a script without blanks (Han, Kana, Thai, Lao, Khmer,
    Myanmar …) than words of other scripts; else words. So a text of two scripts has one unit, and
    a borrowed word or two does not change it.
    """
    dense = sum(not _has_blanks(c) for c in text if c.isalpha())
    runs = re.findall(r"\w+", text)
    borrowed = sum(any(c.isalpha() and _has_blanks(c) for c in run) for run in runs)
    return "characters" if dense > borrowed else "words"


def normalise(text: str, language: str = ENGLISH) -> str:
    """A text as it is compared.

    English: Whisper's normaliser (lower case, no punctuation, numbers as digits). Its table of
    British spellings is a file on the hub; it is left empty, so that a figure does not depend on
    a network: "colour" and "color" count as different. A text of another script is none of
    English's, whatever the language said.

    Else: NFKC, lower case, no punctuation, no symbols, nothing in brackets. Unlike in Whisper's
    basic normaliser marks stay, for they are vowels in Indic and Thai writing and tones elsewhere;
    an apostrophe within a word stays, in one form; invisible format characters go. The points of
    Arabic and Hebrew go: writers leave them out as they please. Digits stay as they are.
    """
    if language == ENGLISH and _is_latin(text):
        return _english()(text)
    text = text.translate(_APOSTROPHES)
    text = re.sub(r"[<\[][^>\]]*[>\]]|\([^)]+?\)", "", text)
    if language in ("tr", "az"):  # their dotted and dotless i are two letters
        text = text.replace("I", "ı").replace("İ", "i")
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")
    # NFKC takes the AM of Thai and Lao apart, which is one character to its readers.
    text = text.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    text = _OPTIONAL.sub("", text)
    text = re.sub(r"(?<!\S)'+|'+(?!\S)", " ", "".join(map(_kept, text)))
    return " ".join(text.split())


def normalise_pair(reference: str, hypothesis: str, language: str = ENGLISH) -> tuple[str, str]:
    """Both texts under the one rule that suits the reference."""
    if language == ENGLISH and not _is_latin(reference):
        language = _UNKNOWN
    return normalise(reference, language), normalise(hypothesis, language)


def cut(text: str, unit: Unit) -> str:
    """A normalised text whose words are its units: characters apart, with no blanks of its own."""
    return text if unit == "words" else " ".join("".join(text.split()))


def _kept(c: str) -> str:
    """A character as it stays: punctuation and symbols as a blank, format characters as nothing."""
    kind = unicodedata.category(c)
    if c == "'" or kind[0] not in "PSC":
        return c
    return "" if kind == "Cf" else " "


def _is_latin(text: str) -> bool:
    """Whether no more than half of the letters are of another script than Latin."""
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(_script(c) == "LATIN" for c in letters) >= len(letters)


def _has_blanks(c: str) -> bool:
    return _script(c) not in _WITHOUT_BLANKS


@lru_cache(maxsize=65536)
def _script(c: str) -> str:
    """The first word of a character's name, which for letters is its script."""
    name = unicodedata.name(c, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    return name.removeprefix("NEW ").split(" ")[0]


@cache
def _english() -> EnglishTextNormalizer:
    return EnglishTextNormalizer({})
