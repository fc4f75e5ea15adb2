"""What the demo LM is shown while it learns to answer by a letter: each step of the way, not its end alone.

To say the letter of a right option an LM finds the answer, turns from it to the option that says it, and
takes that option's letter. Each is worthless without the others, so that letters alone teach none of
them. Here each is learned by itself: the answer's word is asked of a layer half way up, one head of the
layer above is told where to look, and one head near the bottom to look from a word that is asked about to
where it was heard. Must not know how rows are made or the LM is trained.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from demo_rows import Row
from torch import Tensor

from omni.bridge.prompt import IGNORED
from omni.formats.tasks import LETTERS
from omni.nanochat import NanoChat
from omni.nanochat.layers import norm, rotate
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer

FINDS = 1  # the layer whose first head finds what was heard
POINTS = 4  # the layer whose first head points at words and whose second at phrases
WEIGHT = 0.5  # of each hint against the cross-entropy
_HEARD_FROM = 2  # bos and user_start stand before what is heard
_WORD = 3  # ids of the longest option that counts as a word
NOWHERE = 0  # bos, to which a head turns that has nothing to find


class Look(NamedTuple):
    """A head is to turn from position `at` to one of `to`."""

    at: int
    to: list[int]


class Hints(NamedTuple):
    """Of one row. words: as its targets, but the option's word in place of its letter, nothing in
    place of a phrase's; finds: from each word asked about to where it was heard; points, phrases:
    from where a letter is said to where that of the right option stands."""

    words: list[int]
    finds: list[Look]
    points: list[Look]
    phrases: list[Look]


class Reader:
    """Reads hints off rows.

    Raises:
        ValueError: a tokenizer in which "=A" is more than an id: a letter would not stand right
            behind its option.
    """

    def __init__(self, tok: Tokenizer) -> None:
        self.letters = {tok.encode(letter)[0] for letter in LETTERS}
        self.offered = {}  # "=A" -> "A"
        for letter in LETTERS:
            (behind,) = tok.encode(f"={letter}")
            self.offered[behind] = tok.encode(letter)[0]
        (self.dash,) = tok.encode("-")
        (self.quote,) = tok.encode('"')
        self.says = tok.special("assistant_start")
        plain = [tok.decode([i]) for i in range(tok.vocab_size - len(SPECIAL_NAMES))]
        ids = {text: i for i, text in enumerate(plain)}
        # A word has an id with a blank in front and one without.
        self.bare = {
            i: ids[text[1:]] for i, text in enumerate(plain) if text[:1] == " " and text[1:] in ids
        }

    def of(self, row: Row) -> Hints:
        """A row's hints."""
        ids, targets = row.ids, row.targets
        hints = Hints(list(targets), [], [], [])
        heard: dict[int, list[int]] = {}
        first = _HEARD_FROM + row.n_heard
        for at in range(_HEARD_FROM, first):
            heard.setdefault(self._bare(ids[at]), []).append(at)
        options: dict[int, tuple[int, list[int]]] = {}
        option: list[int] | None = None
        quoted = False
        for at in range(first, len(ids)):
            one = ids[at]
            if targets[at] != IGNORED:
                if one in options and ids[at - 1] == self.says:
                    self._choose(hints, at, options)
            elif one == self.dash:
                option = []
            elif one in self.offered and option is not None:
                options[self.offered[one]] = at, option
                option = None
            elif one == self.quote:
                quoted = not quoted
            elif option is not None or quoted:
                hints.finds.append(Look(at, heard.get(self._bare(one), [NOWHERE])))
                if option is not None:
                    option.append(one)
        return hints

    def _choose(self, hints: Hints, at: int, options: dict[int, tuple[int, list[int]]]) -> None:
        there, said = options[hints.words[at]]
        hints.words[at] = self._bare(said[0]) if len(said) == 1 else IGNORED
        phrase = max(len(ids) for _, ids in options.values()) > _WORD
        wanted, other = (hints.phrases, hints.points) if phrase else (hints.points, hints.phrases)
        wanted.append(Look(at - 1, [there]))
        other.append(Look(at - 1, [NOWHERE]))

    def _bare(self, one: int) -> int:
        return self.bare.get(one, one)


def hint_loss(lm: NanoChat, states: Sequence[Tensor], hints: Sequence[Hints]) -> Tensor:
    """What is added to the cross-entropy of a batch, in nats.

    Args:
        states: of its forward pass, n_layer + 2 of (B, T, C).
        hints: of each of its rows.
    """
    words = torch.full(states[0].shape[:2], IGNORED)
    for b, hint in enumerate(hints):
        words[b, : len(hint.words) - 1] = torch.tensor(hint.words[1:])
    keep = words != IGNORED
    total = F.cross_entropy(lm.read_out(states[POINTS][keep]), words[keep])
    for layer, head, kind in ((FINDS, 0, "finds"), (POINTS, 0, "points"), (POINTS, 1, "phrases")):
        looks = [(b, look) for b, hint in enumerate(hints) for look in getattr(hint, kind)]
        if looks:
            total = total + _misses(lm, states, layer, head, looks)
    return WEIGHT * total


def _misses(
    lm: NanoChat, states: Sequence[Tensor], layer: int, head: int, looks: Sequence[tuple[int, Look]]
) -> Tensor:
    """Minus the log of the attention that falls where it should, in the mean."""
    rows = torch.tensor([b for b, _ in looks])
    at = torch.tensor([look.at for _, look in looks])
    right = torch.zeros(len(looks), states[0].shape[1], dtype=torch.bool)
    for i, (_, look) in enumerate(looks):
        right[i, look.to] = True
    logs = attention(lm, states, layer, head)[rows, at]
    return -logs.masked_fill(~right, -torch.inf).logsumexp(-1).mean()


def attention(lm: NanoChat, states: Sequence[Tensor], layer: int, head: int) -> Tensor:
    """Log of where a head of the LM looks, (B, T, T)."""
    x = norm(lm.resid_lambdas[layer] * states[layer] + lm.x0_lambdas[layer] * states[0])
    block, dim, length = lm.transformer["h"][layer].attn, lm.config.head_dim, x.shape[1]
    mine = slice(head * dim, (head + 1) * dim)
    rope = (lm.cos[:length], lm.sin[:length])
    q, k = (
        norm(rotate(F.linear(x, m.weight[mine]), *rope)) * block.qk_scale
        for m in (block.c_q, block.c_k)
    )
    scores = q @ k.mT / dim**0.5
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).log_softmax(-1)
