"""Scoring by script: words where there are blanks, characters where there are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.evaluation.scoring import is_repetitive, score
from omni.evaluation.text import normalise, unit_of

SAID = {
    "en": "the quick brown fox won't stop",
    "fr": "l'homme est là, c'est sûr",
    "it": "dov'è l'acqua",
    "uk": "м'яч і п'ять",
    "hi": "नमस्ते दुनिया कैसे हो",
    "ta": "வணக்கம் உலகம்",
    "bn": "আমার সোনার বাংলা",
    "th": "สวัสดีชาวโลก น้ำใจ",
    "lo": "ສະບາຍດີຊາວໂລກ",
    "km": "សួស្តីពិភពលោក",
    "my": "မင်္ဂလာပါကမ္ဘာ",
    "zh": "今天天气很好我们走吧",
    "ja": "今日はいい天気ですね",
    "ko": "안녕하세요 세계",
    "ar": "مرحبا بالعالم",
    "he": "שלום עולם",
    "yo": "ọjọ́ dára",
    "vi": "xin chào thế giới",
}
UNSPACED = ("th", "lo", "km", "my", "zh", "ja")


@pytest.mark.parametrize(("language", "said"), SAID.items())
def test_a_text_against_itself_has_no_errors_in_its_scripts_unit(language: str, said: str) -> None:
    for spoken in (language, "en"):  # the language may be left out
        found = score(said, said, spoken)
        assert found.errors.total == found.chars.total == 0
        assert found.errors.n > 1
        assert found.unit == ("characters" if language in UNSPACED else "words")


@pytest.mark.parametrize("language", sorted(SAID))
@given(data=st.data())
def test_whatever_is_said_is_equal_to_itself_alone(language: str, data: st.DataObject) -> None:
    text = data.draw(st.text())
    assert score(text, text, language).errors.total == 0


@pytest.mark.parametrize(
    ("said", "heard", "language", "wrong", "n"),
    [
        ("l'homme est là", "l’homme est là", "fr", 0, 3),  # another apostrophe
        ("l'homme est là", "L\u02bchomme est la\u0300", "fr", 0, 3),  # another one, another form
        ("l'homme est là", "femme est là", "fr", 1, 3),
        ("qu'il l'a dit", "qu'il la dit", "fr", 1, 3),
        ("po' d'acqua", "po d'acqua", "it", 0, 2),  # at a word's edge it is a quotation mark
        ("м'яч", "мʼяч", "uk", 0, 1),
        ("कल", "काल", "hi", 1, 1),  # a vowel sign is all that differs
        ("दिन दीन", "दीन दीन", "hi", 1, 2),
        ("நான்", "நான", "ta", 1, 1),
        ("今天天气很好我们走吧", "今天天气很坏我们走吧", "zh", 1, 10),
        ("今天天气很好我们走吧", "今天 天气,很好!我们走吧。", "zh", 0, 10),
        ("今天天气很好我们走吧", "今天天气很坏我们走吧", "en", 1, 10),
        ("カタカナ", "ｶﾀｶﾅ", "ja", 0, 4),  # half width
        ("น้ำ", "น้า", "th", 1, 3),
        ("ไม่ ไป", "ไม่ไป", "th", 0, 5),
        ("我用 Python 写", "我用python写", "zh", 0, 9),
        ("I said 你好 to her", "I said 你好 to her", "en", 0, 5),
        ("İSTANBUL IRMAK", "istanbul ırmak", "tr", 0, 2),
        ("می‌خواهم", "میخواهم", "fa", 0, 1),  # an invisible joiner
        ("مُحَمَّدٌ", "محمد", "ar", 0, 1),  # vowel points, which writers leave out
        ("שָׁלוֹם", "שלום", "he", 0, 1),
        ("ọjọ́", "ọjọ", "yo", 1, 1),  # a tone is not left out
        ("Colour twenty-one", "colour 21", "en", 0, 2),
        ("vingt-et-un (rires)", "vingt et un", "fr", 0, 3),
    ],
)
def test_errors_count_what_the_script_writes(
    said: str, heard: str, language: str, wrong: int, n: int
) -> None:
    found = score(said, heard, language)
    assert (found.errors.total, found.errors.n) == (wrong, n)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("", "words"), ("123", "words"), ("2024年", "characters"), ("hello 世", "words"),
        ("hello 世界", "characters"), ("我用Python", "characters"), ("조선말", "words"),
    ],
)  # fmt: skip
def test_a_text_of_two_scripts_has_one_unit(text: str, unit: str) -> None:
    assert unit_of(text) == unit


@given(st.text(alphabet="ab'’ ", min_size=1))
def test_an_apostrophe_stays_within_a_word_and_nowhere_else(text: str) -> None:
    words = normalise(text, "fr").split()
    assert all(word.strip("'") == word for word in words)
    assert normalise(" ".join(words), "fr").split() == words


@given(st.text(alphabet="कखगािीुूेैोौंँ् ", min_size=1))
def test_no_vowel_sign_of_hindi_is_lost(text: str) -> None:
    assert normalise(text, "hi") == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("今天天气很好" * 4, True),
        ("今天天气很好我们走吧", False),
        ("ครับ" * 5, True),
        ("कल " * 4, True),
    ],
)
def test_loops_are_found_without_blanks(text: str, loops: bool) -> None:
    assert is_repetitive(text) is loops
