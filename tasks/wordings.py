"""How each question is put, in many words: some to train with, some that training never sees.

At least a fifth of each kind's wordings are held out, to measure whether a prompt never met is obeyed.
`{word}` is what is asked about. Must not know utterances.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wordings:
    """train: for tables that train. held: for those that judge."""

    train: tuple[str, ...]
    held: tuple[str, ...]

    def of(self, role: str) -> tuple[str, ...]:
        """Those of a table's role, "train" or "eval"."""
        return self.held if role == "eval" else self.train


# fmt: off
REPEAT = {
    "plain": Wordings(
        ("Repeat that.", "Repeat what was said.", "Say it again.", "What was said?", "What did they say?",
         "Write it down.", "Write down what you hear.", "Transcribe this.", "Transcribe the recording.",
         "Give me the words.", "Type out what is spoken.", "Put this in writing.", "What are the words?",
         "Please repeat it word for word.", "Copy what you heard.", "What does the speaker say?",
         "Note down the sentence.", "Tell me exactly what was said.", "Spell out the spoken words.",
         "What is being said here?", "I missed that, what was it?", "Take this down for me.",
         "Give the text of this clip.", "Turn the speech into text.", "Echo the speaker.",
         "Read it back to me.", "Say the same words.", "Which words were spoken?",
         "Quote the speaker.", "Let me see that in words.", "Make a transcript.", "What was that again?"),
        ("Could you write out what this person said?", "Word for word, what is in this recording?",
         "Provide a transcription.", "Return the spoken sentence.", "Jot down what you just heard.",
         "Tell me the words of this clip.", "Please put the speech on paper.", "What did I just say?"),
    ),
    "upper": Wordings(
        ("Repeat that in capital letters.", "Write what was said in upper case.", "Transcribe this in capitals.",
         "Give me the words, all in capitals."),
        ("Shout the sentence back in upper case letters.",),
    ),
    "first-three": Wordings(
        ("What are the first three words?", "Repeat only the first three words.",
         "Write down the first three words and stop.", "Give me the three words it begins with."),
        ("Just the opening three words, please.",),
    ),
    "backwards": Wordings(
        ("Repeat the words in reverse order.", "Say it backwards, word by word.",
         "Write the words from last to first.", "Give me the sentence with its words reversed."),
        ("Starting from the end, list every word.",),
    ),
}
CONTENT = {
    "heard": Wordings(  # open: yes or no
        ('Was the word "{word}" said?', 'Do they say "{word}"?', 'Is "{word}" among the words?',
         'Did you hear "{word}"?'),
        ('Does "{word}" occur in what was said?',),
    ),
    "heard-which": Wordings(
        ("Which of these words was said?", "Which word do you hear?", "One of these was spoken. Which?",
         "Pick the word that was said."),
        ("Which of the following occurs in the recording?",),
    ),
    "after": Wordings(
        ('Which word came after "{word}"?', 'What comes right after "{word}"?', 'What follows "{word}"?',
         'After "{word}" they say what?'),
        ('Name the word that comes next after "{word}".',),
    ),
    "before": Wordings(
        ('Which word came before "{word}"?', 'What comes right before "{word}"?', 'What precedes "{word}"?',
         'Before "{word}" they say what?'),
        ('Name the word that stands just before "{word}".',),
    ),
    "first": Wordings(
        ("What is the first word?", "Which word do they begin with?", "What was said first?",
         "How does it begin?"),
        ("Tell me the opening word.",),
    ),
    "last": Wordings(
        ("What is the last word?", "Which word do they end with?", "What was said last?", "How does it end?"),
        ("Tell me the closing word.",),
    ),
    "count": Wordings(
        ("How many words were said?", "How many words are there?", "Count the words.",
         "Of how many words is it?"),
        ("What is the number of spoken words?",),
    ),
    "sentence": Wordings(
        ("Which of these was said?", "Which one do you hear?", "Pick what was said.", "Which of these is right?"),
        ("Which of the following was spoken?",),
    ),
    "number": Wordings(
        ("Which number was said?", "What number do you hear?", "What was the number?", "Name the number."),
        ("Tell me the number that was mentioned.",),
    ),
    "colour": Wordings(
        ("Which colour was said?", "What colour do you hear?", "What was the colour?", "Name the colour."),
        ("Tell me the colour that was mentioned.",),
    ),
    "place": Wordings(
        ("Which place was said?", "What place do you hear?", "Which place was named?", "Name the place."),
        ("Tell me the place that was mentioned.",),
    ),
}
VOICE = {
    "sex": Wordings(
        ("Is this a man or a woman?", "Who speaks, a man or a woman?", "Is the speaker a man or a woman?",
         "Is it a man's or a woman's voice?"),
        ("Would you say that a man or a woman is talking?",),
    ),
    "speaker": Wordings(
        ("Which reader is this?", "Whose voice is it?", "Who is speaking?", "Name the reader."),
        ("Which of the readers do you hear?",),
    ),
}
NOTHING = {
    "said": Wordings(
        ("What was said?", "What did they say?", "Repeat that.", "Write it down.", "Transcribe this.",
         "What is the first word?", "Which words were spoken?", "What are the words?"),
        ("Could you write out what this person said?", "Tell me the opening word."),
    ),
    "which": Wordings(
        ("Which of these words was said, if any?", "Is one of these words said?",
         "Do you hear one of these?", "Which of these do you hear, if any?"),
        ("Is any of the following spoken?",),
    ),
}
# fmt: on
SELF = Wordings(
    (
        "Answer that.",
        "What do you say to that?",
        "Go on.",
        "What is this about?",
        "Reply to this.",
        "Explain that.",
        "What comes next?",
        "Tell me more.",
    ),
    ("How would you respond?", "Say something about this."),
)  # fmt: skip
