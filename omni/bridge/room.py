"""Which utterances fit in a row of the LM: known from frames and text before the first step.

Must not know files, nor the projector beyond its frames to a soft token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from omni.bridge.prompt import row_limit
from omni.bridge.turns import Template, Turn, lay_out
from omni.errors import OmniError
from omni.formats.shards import Sample
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer


@dataclass(frozen=True)
class Room:
    """limit: positions of a row; around: those besides audio and text; stack: frames to a soft
    token; stretch: share by which augmentation may lengthen an utterance in training; template: of
    rows with turns of their own."""

    limit: int
    around: int
    stack: int
    tok: Tokenizer
    stretch: float = 0.0
    template: Template | None = None

    def n_soft(self, n_frames: int, training: bool) -> int:
        """Soft tokens of so many frames, in training of the most that augmentation makes of them."""
        if training:
            n_frames = max(round(n_frames * (1 + self.stretch)), n_frames)
        return -(-n_frames // self.stack)

    def holds(self, n_frames: int, turns: Sequence[Turn], training: bool) -> bool:
        """Whether a row of these turns, with one utterance in them, is no longer than the LM's."""
        if self.template is None:
            raise ValueError("a room without a template knows no turns")
        soft = [self.n_soft(n_frames, training)]
        # A token holds a byte at least; around a turn stand five special ones at most.
        most = sum(len((t.prompt + (t.answer or "")).encode()) + 5 for t in turns)
        if soft[0] + most <= self.limit:
            return True
        (row,) = lay_out([turns], soft, self.template, self.tok)
        return row.length <= self.limit

    def positions(self, n_frames: int, text: str, training: bool) -> int:
        """Positions that the row needs, in training at the longest that augmentation makes it."""
        audio = self.around + self.n_soft(n_frames, training)
        # A token of a byte-pair encoding holds a byte at least: most texts need no count.
        most = len(text.encode())
        if audio + most <= self.limit:
            return audio + most
        return audio + len(self.tok.encode(text))

    def fits(self, n_frames: int, text: str, training: bool) -> bool:
        """Whether the row is no longer than the LM's."""
        return self.positions(n_frames, text, training) <= self.limit


def make_room(lm: NanoChat, tok: Tokenizer, template: Template, stack: int, stretch: float) -> Room:
    """The room of this LM's rows, laid out by this template."""
    return Room(row_limit(lm), template.around(tok), stack, tok, stretch, template)


def that_fit(samples: Sequence[Sample], room: Room) -> tuple[list[Sample], str]:
    """The samples to judge by whose rows fit, and a line on the others ("" if there are none).

    Raises:
        OmniError: there are samples, and none fits.
    """
    kept, long = [], []
    for sample in samples:
        text = sample.meta["text_norm"]
        needed = room.positions(sample.features.shape[-2], text, training=False)
        if needed > room.limit:
            long.append((needed, sample.meta["id"]))
        else:
            kept.append(sample)
    if not long:
        return kept, ""
    needed, longest = max(long)
    line = (
        f"{len(long):,} utterance{'s' * (len(long) > 1)} too long for the LM left out (longest: "
        f"{longest}, {needed:,} positions; the LM's rows end at {room.limit:,})"
    )
    if not kept:
        raise OmniError("no utterance fits in a row of the LM", line, "judge by shorter ones")
    return kept, line
