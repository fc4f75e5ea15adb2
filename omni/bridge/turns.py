"""Which ids stand where in a row: one place for one turn or several, with audio in any user's turn.

Chat checkpoints: `[bos][user_start] audio prompt [user_end][assistant_start] answer [assistant_end]`, and
on with the next `[user_start]`. Base checkpoints: `[bos] audio prompt answer [bos]`, a single turn: no
other special token was trained, and a new bos is how their documents end. bos stands first because it
opens every row the LM was trained on.

Must not know tensors, nor the LM beyond its tokenizer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from omni.errors import OmniError
from omni.formats.run_files import Kind, TemplateConfig
from omni.formats.tasks import LETTERS
from omni.nanochat.tokenizer import Tokenizer

DEFAULT_PROMPT = " Repeat that."


@dataclass(frozen=True)
class Turn:
    """What the user says, and what is answered.

    prompt: the user's words as they are encoded: with a blank in front where they follow audio.
    answer: None where the LM is to go on; then no turn may follow.
    audio: whether soft tokens stand before the prompt.
    own: whether the LM's own distribution over the answer is the aim, where one asks for it
        (a row of kind `self`).
    """

    prompt: str
    answer: str | None = None
    audio: bool = False
    own: bool = False


@dataclass(frozen=True)
class Template:
    """How a row is laid out: `kind` is "sft" or "base"; `prompt` follows the audio where a sample
    brings none of its own.

    `audio_first` puts the first turn's audio before bos, for comparison: no row that the LM was
    trained on begins so.
    """

    kind: Kind
    prompt: str
    audio_first: bool = False

    def to_json(self) -> TemplateConfig:
        """As a run's config holds it."""
        return {"kind": self.kind, "prompt": self.prompt, "audio_first": self.audio_first}

    def repeat(self, text: str | None) -> tuple[Turn, ...]:
        """The row of an utterance whose text is to be learned; None ends it where decoding begins."""
        return (Turn(self.prompt, text, audio=True),)

    def before(self, tok: Tokenizer) -> list[int]:
        """Ids in front of the first turn's audio."""
        return [] if self.audio_first else self.opening(tok)

    def after(self, tok: Tokenizer) -> list[int]:
        """Ids between the audio and the text."""
        ids = self.opening(tok) if self.audio_first else []
        return ids + tok.encode(self.prompt) + self.handover(tok)

    def around(self, tok: Tokenizer) -> int:
        """Positions of a row besides its audio and its text, the end token included."""
        return len(self.before(tok)) + len(self.after(tok)) + 1

    def opening(self, tok: Tokenizer) -> list[int]:
        """Ids that open a row and its first user's turn."""
        names = ["bos", "user_start"] if self.kind == "sft" else ["bos"]
        return [tok.special(name) for name in names]

    def handover(self, tok: Tokenizer) -> list[int]:
        """Ids between the user's words and the answer."""
        names = ["user_end", "assistant_start"] if self.kind == "sft" else []
        return [tok.special(name) for name in names]

    def end(self, tok: Tokenizer) -> int:
        """The id that ends an answer: its last target, and where decoding stops."""
        return tok.special("assistant_end" if self.kind == "sft" else "bos")


def choose_template(
    meta: Mapping[str, Any], prompt: str | None = None, audio_first: bool = False
) -> Template:
    """The template a checkpoint was trained for.

    Args:
        meta: as `load_checkpoint` gives it; "kind" is "base", "mid", "sft" or "rl".
        prompt: text after the audio; None takes `DEFAULT_PROMPT`, or nothing for a base model.
        audio_first: put the audio before bos.
    """
    kind: Kind = "base" if meta.get("kind", "sft") == "base" else "sft"
    default = DEFAULT_PROMPT if kind == "sft" else ""
    return Template(kind, default if prompt is None else prompt, audio_first)


def letter_ids(tok: Tokenizer) -> list[int]:
    """Ids of A, B, C, D.

    Raises:
        OmniError: one is more than a token: nothing would stand where its logit is read.
    """
    ids = [tok.encode(letter) for letter in LETTERS]
    for letter, own in zip(LETTERS, ids, strict=True):
        if len(own) != 1:
            raise OmniError(
                f"the letter {letter} is {len(own)} tokens to this LM",
                "its tokenizer",
                "questions with options need an LM whose tokenizer has A, B, C, D",
            )
    return [own[0] for own in ids]


class Piece(NamedTuple):
    """Soft tokens in a row: n of them from position `start` on, those of the batch's utterance
    number `audio`."""

    start: int
    audio: int
    n: int


@dataclass
class Layout:
    """One row before any tensor.

    ids: its tokens in order, audio left out; pieces: its audio; asked: positions that are asked for
    the id that comes next; answers: these ids; own: whether the LM's own distribution is the aim
    there; length: positions, audio included.
    """

    ids: list[int]
    pieces: list[Piece]
    asked: list[int]
    answers: list[int]
    own: list[bool]
    length: int = 0

    @property
    def text_places(self) -> list[int]:
        """Positions of `ids`."""
        spoken = {t for p in self.pieces for t in range(p.start, p.start + p.n)}
        return [t for t in range(self.length) if t not in spoken]

    def _say(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self.length += len(ids)

    def _hear(self, audio: int, n: int) -> None:
        self.pieces.append(Piece(self.length, audio, n))
        self.length += n

    def _answer(self, ids: Sequence[int], own: bool) -> None:
        """Position t is asked for the id at t + 1: from the one before the answer on."""
        self.asked += range(self.length - 1, self.length - 1 + len(ids))
        self.answers += ids
        self.own += [own] * len(ids)
        self._say(ids)


def lay_out(
    rows: Sequence[Sequence[Turn]], n_soft: Sequence[int], template: Template, tok: Tokenizer
) -> list[Layout]:
    """The layout of each row.

    Args:
        rows: turns of each; turns with audio take the batch's utterances in order.
        n_soft: soft tokens of each utterance.

    Raises:
        OmniError: a row without a turn, one that goes on after an open answer, several turns for a
            base model, more or fewer turns with audio than utterances.
    """
    spoken = sum(turn.audio for turns in rows for turn in turns)
    if spoken != len(n_soft):
        raise OmniError(f"{spoken} turns with audio, {len(n_soft)} utterances", "rows of a batch")
    heard = iter(enumerate(n_soft))
    return [_row(turns, [next(heard) for turn in turns if turn.audio], template, tok) for turns in rows]  # fmt: skip


def _row(
    turns: Sequence[Turn], audio: Sequence[tuple[int, int]], template: Template, tok: Tokenizer
) -> Layout:
    if not turns or any(turn.answer is None for turn in turns[:-1]):
        raise OmniError("a row needs a turn, and an answer in each but its last", repr(turns)[:200])
    if template.kind == "base" and len(turns) > 1:
        raise OmniError("a base model knows no turns", f"a row of {len(turns)} of them")
    heard = iter(audio)
    row = Layout([], [], [], [], [])
    for i, turn in enumerate(turns):
        opening = template.opening(tok) if i == 0 else [tok.special("user_start")]
        before_bos = i == 0 and template.audio_first and turn.audio
        if before_bos:
            row._hear(*next(heard))
        row._say(opening)
        if turn.audio and not before_bos:
            row._hear(*next(heard))
        row._say(tok.encode(turn.prompt))
        row._say(template.handover(tok))
        if turn.answer is not None:
            row._answer([*tok.encode(turn.answer), template.end(tok)], turn.own)
    return row
