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
         "Give me the words.", "Write out what is spoken.", "Put this in writing.", "What are the words?",
         "Please repeat it word for word.", "Copy what you heard.", "What does the person say?",
         "Note down the spoken sentence.", "Tell me exactly what I said.", "Give me a transcription.",
         "What is being said in this clip?", "I missed that, what was it?", "Take this down for me.",
         "Give the text of this clip.", "Turn the speech into text.", "Could you repeat this?",
         "Read it back to me.", "Say the same words.", "Which words were spoken?",
         "Return the words.", "Put the words on paper.", "What did you just hear?", "What was that again?"),
        ("Could you write out what this person said?", "Word for word, what is in this recording?",
         "Give me the transcription of this.", "Return the spoken sentence.",
         "Write down what you just heard.", "Tell me the words of this clip.",
         "Please put the speech on paper.", "What did I just say?"),
    ),
    "upper": Wordings(
        ("Repeat that in capital letters.", "Write what was said in upper case.",
         "Transcribe this in capitals.", "Give me the words, all in capitals.", "Say it in upper case letters.",
         "In capitals, what was said?", "Put the words in capital letters.", "Write it in capitals, please."),
        ("Please give me that in upper case letters.", "Write the words in capital letters."),
    ),
    "first-three": Wordings(
        ("What are the first three words?", "Repeat only the first three words.",
         "Write down the first three words and stop.", "Give me the three words it begins with.",
         "Just the first three words.", "Say the first three words, please.",
         "With which three words does it begin?", "The three opening words only."),
        ("Just the opening three words, please.", "Give me only the first three words."),
    ),
    "backwards": Wordings(
        ("Repeat the words in reverse order.", "Say it backwards, word by word.",
         "Write the words from last to first.", "Give me the sentence with its words reversed.",
         "Repeat that backwards.", "From the end to the start, word by word.",
         "Read the words backwards, please.", "What are the words in reverse?"),
        ("Give me the words from the end to the start.", "Say the words in reverse order."),
    ),
}
CONTENT = {
    "heard": Wordings(  # open: yes or no
        ('Was the word "{word}" said?', 'Do they say "{word}"?', 'Is "{word}" among the words?',
         'Did you hear "{word}"?', 'Was "{word}" said?', 'Is "{word}" in it?', 'Was there a "{word}"?',
         'Does the word "{word}" occur?', '"{word}": was it said?', 'Is the word "{word}" in what you hear?',
         'Yes or no: "{word}"?', 'Did they say the word "{word}"?'),
        ('Does "{word}" occur in what was said?', 'Did you hear the word "{word}"?',
         'Was "{word}" among the words?'),
    ),
    "heard-which": Wordings(
        ("Which of these words was said?", "Which word do you hear?", "One of these was spoken. Which?",
         "Pick the word that was said.", "Which word was said?", "Which one of the following is in it?",
         "Find the word that you hear.", "Which of these words is in the recording?",
         "Only one of these words was said. Which?", "Which of the following words do they say?",
         "Choose the spoken word.", "What word occurs?"),
        ("Which of the following occurs in the recording?", "Choose the word that you hear.",
         "Which one of these words do they say?"),
    ),
    "after": Wordings(
        ('Which word came after "{word}"?', 'What comes right after "{word}"?', 'What follows "{word}"?',
         'After "{word}" they say what?', 'Which word is after "{word}"?', 'Name the word after "{word}".',
         'What is next after "{word}"?', 'Which word follows "{word}"?', 'What did they say after "{word}"?',
         'The word after "{word}"?', 'What comes next, after "{word}"?', 'Give me the word that follows "{word}".'),
        ('Name the word that comes next after "{word}".', 'What word is right after "{word}"?',
         'Give me what follows "{word}".'),
    ),
    "before": Wordings(
        ('Which word came before "{word}"?', 'What comes right before "{word}"?', 'What precedes "{word}"?',
         'Before "{word}" they say what?', 'Which word is before "{word}"?', 'Name the word before "{word}".',
         'What is just before "{word}"?', 'Which word precedes "{word}"?', 'What did they say before "{word}"?',
         'The word before "{word}"?', 'What stands before "{word}"?', 'Give me the word that precedes "{word}".'),
        ('Name the word that stands just before "{word}".', 'What word is right before "{word}"?',
         'Give me what precedes "{word}".'),
    ),
    "first": Wordings(
        ("What is the first word?", "Which word do they begin with?", "What was said first?",
         "How does it begin?", "Name the first word.", "What is the opening word?", "Which word comes first?",
         "Tell me the first word.", "With what word does it begin?", "The first word?", "How does it open?",
         "Give me the word it begins with."),
        ("Tell me the opening word.", "Which word was said first?", "What word does it begin with?"),
    ),
    "last": Wordings(
        ("What is the last word?", "Which word do they end with?", "What was said last?", "How does it end?",
         "Name the last word.", "What is the closing word?", "Which word comes last?", "Tell me the last word.",
         "With what word does it end?", "The last word?", "How does it close?", "Give me the word it ends with."),
        ("Tell me the closing word.", "Which word was said last?", "What word does it end with?"),
    ),
    "count": Wordings(
        ("How many words were said?", "How many words are there?", "Count the words.",
         "Of how many words is it?", "How many words do you hear?", "What is the number of words?",
         "Tell me how many words.", "Count the spoken words."),
        ("What is the number of spoken words?", "How many words is it?"),
    ),
    "sentence": Wordings(
        ("Which of these was said?", "Which one do you hear?", "Pick what was said.", "Which of these is right?",
         "What was said?", "Which of the following is right?", "Choose what you hear.",
         "Which one was spoken?", "One of these was said. Which?", "Find what was spoken.",
         "Which of these do they say?", "Only one is right. Which?"),
        ("Which of the following was spoken?", "Choose what was said.", "Which of these do you hear?"),
    ),
    "number": Wordings(
        ("Which number was said?", "What number do you hear?", "What was the number?", "Name the number.",
         "Which number is it?", "Tell me the number.", "What number was mentioned?", "The number?",
         "Which number do they say?", "Give me the number.", "What is the number that was said?",
         "Pick the number you hear."),
        ("Tell me the number that was mentioned.", "Which number do you hear?", "What number is it?"),
    ),
    "colour": Wordings(
        ("Which colour was said?", "What colour do you hear?", "What was the colour?", "Name the colour.",
         "Which colour is it?", "Tell me the colour.", "What colour was mentioned?", "The colour?",
         "Which colour do they say?", "Give me the colour.", "What is the colour that was said?",
         "Pick the colour you hear."),
        ("Tell me the colour that was mentioned.", "Which colour do you hear?", "What colour is it?"),
    ),
    "place": Wordings(
        ("Which place was said?", "What place do you hear?", "Which place was named?", "Name the place.",
         "Which place is it?", "Tell me the place.", "What place was mentioned?", "The place?",
         "Which place do they say?", "Give me the place.", "What is the place that was said?",
         "Pick the place you hear."),
        ("Tell me the place that was mentioned.", "Which place do you hear?", "What place is it?"),
    ),
}
VOICE = {
    "sex": Wordings(
        ("Is this a man or a woman?", "Who speaks, a man or a woman?", "Is the speaker a man or a woman?",
         "Is it a man's or a woman's voice?", "A man or a woman?", "Who is talking, a man or a woman?",
         "Do you hear a man or a woman?", "Tell me: man or woman?"),
        ("Is a man or a woman talking?", "Who do you hear, a man or a woman?"),
    ),
    "speaker": Wordings(
        ("Which reader is this?", "Whose voice is it?", "Who is speaking?", "Name the reader.",
         "Which of the readers is it?", "Who is the reader?", "Which reader do you hear?", "Whose voice is this?"),
        ("Which of the readers do you hear?", "Whose voice do you hear?"),
    ),
}
NOTHING = {
    "said": Wordings(
        ("What was said?", "What did they say?", "Repeat that.", "Write it down.", "Transcribe this.",
         "What is the first word?", "Which words were spoken?", "What are the words?", "What is the last word?",
         "Give me the words.", "Which number was said?", "Could you repeat this?"),
        ("Could you write out what this person said?", "Tell me the opening word.",
         "Which word was said last?"),
    ),
    "which": Wordings(
        ("Which of these words was said, if any?", "Is one of these words said?",
         "Do you hear one of these?", "Which of these do you hear, if any?",
         "Was any of the following said?", "Is any of these words in it?", "Which was spoken, if any?",
         "Is one of the following spoken?"),
        ("Is any of the following spoken?", "Which of these was said, if any?"),
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
