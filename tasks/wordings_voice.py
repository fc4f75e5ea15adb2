"""How questions about a voice and about what sounds are put: some to train with, some that training never sees.

Each asks for a man or a woman and one thing more, in one option of four: "a man, fast". Must not know
utterances.
"""

from tasks.wordings import Wordings

# By what is asked beside the sex: (of a man, of a woman), in the order of the classes.
CLASSES: dict[str, tuple[str, str]] = {
    "sex-pace": ("fast", "slow"),
    "sex-pitch": ("high", "low"),
    "sex-accent": ("American", "British"),
}
SEXES = {"M": "a man", "F": "a woman"}
# Sounds by the kind that a manifest's column `sound` names; about as long as one another.
SOUNDS = {
    "hiss": "a hiss",
    "hum": "a hum",
    "telephone": "a phone",
    "instrument": "a tune",
    "applause": "applause",
    "silence": "silence",
}
# fmt: off
VOICE_AND = {
    "sex-pace": Wordings(
        ("Who speaks, and how fast?", "Is it a man or a woman, fast or slow?", "What is the voice, and its pace?",
         "Who is it, and at what pace?"),
        ("Who is talking here, and how quickly?", "Tell me whose voice it is and how fast it goes."),
    ),
    "sex-pitch": Wordings(
        ("Who speaks, and how high?", "Is it a man or a woman, high or low?", "What is the voice, and its pitch?",
         "Who is it, and at what pitch?"),
        ("Who is talking here, in a high or a low voice?", "Tell me whose voice it is and how high it lies."),
    ),
    "sex-accent": Wordings(
        ("Who speaks, and with which accent?", "Is it a man or a woman, American or British?",
         "What is the voice, and its accent?", "Who is it, and from which country?"),
        ("Who is talking here, and where are they from?", "Tell me whose voice it is and which English it speaks."),
    ),
}
SOUND = {
    "behind": Wordings(
        ("What is heard behind the voice?", "What sounds in the background?", "What else is there but the voice?",
         "What is behind the speaker?"),
        ("Besides the talking, what can be heard?", "Tell me what goes on in the background."),
    ),
    "alone": Wordings(
        ("What is heard?", "What sound is this?", "What do you hear?", "What is in the recording?"),
        ("Which of these can be heard?", "Tell me what this is a recording of."),
    ),
}
# fmt: on
