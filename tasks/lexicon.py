"""Words by the part they play: numbers, colours, places, and those too common to ask about.

English, as the questions are. Must not know a corpus.
"""


def _words(text: str) -> list[str]:
    return text.split()


NUMBERS = _words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred "
    "thousand million"
)
COLOURS = _words(
    "red orange yellow green blue purple violet pink brown black white grey gray silver golden crimson "
    "scarlet"
)
PLACES = _words(
    "river kitchen garden station church bridge forest castle meadow house street village city town "
    "school market harbour harbor island mountain valley beach field farm road hall library museum "
    "palace tower cellar attic stable mill inn shop hospital prison theatre theater square park lake "
    "london paris england france america rome germany spain egypt"
)
PARTS = {
    word: part
    for part, words in (("number", NUMBERS), ("colour", COLOURS), ("place", PLACES))
    for word in words
}
# In words, for "how many words": the LM says numbers so.
COUNTS = ["zero", *NUMBERS[:20]]
FUNCTION_WORDS = frozenset(
    _words(
        "a about after again all also am an and any are as at be because been before but by can could did do "
        "does for from had has have he her here him his how i if in into is it its let like may me might more "
        "most must my no nor not now of on one only or other our out over own shall she should so some such "
        "than that the their them then there these they this those through to too under until up upon us very "
        "was we well were what when where which while who whom whose why will with would yet you your"
    )
)
