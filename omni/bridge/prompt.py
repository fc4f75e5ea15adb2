"""The one place where a row is laid out: training, evaluation and transcription all call it.

Chat checkpoints: `[bos][user_start] audio prompt [user_end][assistant_start] text [assistant_end]`.
Base checkpoints:  `[bos] audio text [bos]`: no other special token was trained, and a new bos is
how their documents end. bos stands first because it opens every row the LM was trained on.

Must not know where soft tokens come from, nor what is done with the logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omni.bridge.projector import Soft
from omni.errors import OmniError
from omni.nanochat.model import NanoChat
from omni.nanochat.positions import ROPE_FACTOR
from omni.nanochat.tokenizer import Tokenizer

DEFAULT_PROMPT = " Repeat that."
IGNORED = -1  # nanochat's own mark of a position without a target
CHAT_SPECIALS = ("user_start", "user_end", "assistant_start", "assistant_end")


@dataclass(frozen=True)
class Template:
    """How a row is laid out: `kind` is "sft" or "base"; `prompt` follows the audio.

    `audio_first` puts the audio before bos, for comparison: no row that the LM was trained on
    begins so.
    """

    kind: str
    prompt: str
    audio_first: bool = False

    def before(self, tok: Tokenizer) -> list[int]:
        """Ids in front of the audio."""
        return [] if self.audio_first else self._opening(tok)

    def after(self, tok: Tokenizer) -> list[int]:
        """Ids between the audio and the text."""
        ids = self._opening(tok) if self.audio_first else []
        ids += tok.encode(self.prompt) if self.prompt else []
        if self.kind == "sft":
            ids += [tok.special("user_end"), tok.special("assistant_start")]
        return ids

    def end(self, tok: Tokenizer) -> int:
        """The id that ends the text: the last target, and where decoding stops."""
        return tok.special("assistant_end" if self.kind == "sft" else "bos")

    def _opening(self, tok: Tokenizer) -> list[int]:
        names = ["bos", "user_start"] if self.kind == "sft" else ["bos"]
        return [tok.special(name) for name in names]


def choose_template(
    meta: Mapping[str, Any], prompt: str | None = None, audio_first: bool = False
) -> Template:
    """The template a checkpoint was trained for.

    Args:
        meta: as `load_checkpoint` gives it; "kind" is "base", "mid", "sft" or "rl".
        prompt: text after the audio; None takes `DEFAULT_PROMPT`, or nothing for a base model.
        audio_first: put the audio before bos.
    """
    kind = "base" if meta.get("kind", "sft") == "base" else "sft"
    default = DEFAULT_PROMPT if kind == "sft" else ""
    return Template(kind, default if prompt is None else prompt, audio_first)


@dataclass
class Row:
    """One utterance, ready for the LM.

    rows: (T, C); ve_rows: (T, n_ve, kv_dim) or None; targets: (T,) int64, at each position the
    id that should come next, `IGNORED` where nothing is asked. The audio is
    `rows[audio_start : audio_start + n_soft]`.
    """

    rows: Tensor
    ve_rows: Tensor | None
    targets: Tensor
    audio_start: int
    n_soft: int


def build_row(
    lm: NanoChat,
    tok: Tokenizer,
    soft_rows: Tensor,
    soft_ve: Tensor | None,
    text: str | None,
    template: Template,
    name: str = "",
) -> Row:
    """Splice the audio between the template's ids and look the rest up in the LM's tables.

    Args:
        soft_rows: (N, C) projected audio; N = 0 is a row without audio (a control).
        soft_ve: (N, n_ve, kv_dim), or None: zeros, never the value of some dummy id.
        text: the transcript to be learned; None ends the row where decoding begins.
        template: from `choose_template`.
        name: the utterance, for the error message.

    Raises:
        OmniError: the row is longer than the LM's rotary table.
    """
    before, after = template.before(tok), template.after(tok)
    answer = [] if text is None else [*tok.encode(text), template.end(tok)]
    n_soft, start = soft_rows.shape[0], len(before)
    _check_length(start + n_soft + len(after) + len(answer), lm, name)

    ids = torch.tensor([[*before, *after, *answer]], device=soft_rows.device)
    text_rows, text_ve = lm.embed(ids)  # (1, T - N, C), (1, T - N, n_ve, kv_dim) or None
    rows = _splice(text_rows[0].to(soft_rows.dtype), soft_rows, start)
    ve_rows = None
    if text_ve is not None:
        if soft_ve is None:
            soft_ve = text_ve.new_zeros(n_soft, *text_ve.shape[2:])
        ve_rows = _splice(text_ve[0].to(soft_ve.dtype), soft_ve, start)

    # Position t is asked for the id at t + 1: from the one before the answer to its last but one.
    targets = torch.full((rows.shape[0],), IGNORED, dtype=torch.long)
    if answer:
        first = rows.shape[0] - len(answer) - 1
        targets[first:-1] = torch.tensor(answer)
    return Row(rows, ve_rows, targets.to(rows.device), start, n_soft)


@dataclass
class Batch:
    """Rows padded on the right, the only side the LM allows.

    rows: (B, T, C); ve_rows: (B, T, n_ve, kv_dim) or None; targets: (B, T) int64;
    lengths: (B,) int64, real positions.
    """

    rows: Tensor
    ve_rows: Tensor | None
    targets: Tensor
    lengths: Tensor

    @property
    def positions(self) -> Tensor:
        """(B, T) bool, where a target stands: the only places lm_head is needed at."""
        return self.targets != IGNORED


def collate(rows: Sequence[Row]) -> Batch:
    """Right-pad rows to the longest with zeros and `IGNORED` targets."""
    pad = torch.nn.utils.rnn.pad_sequence
    ve_rows = [row.ve_rows for row in rows if row.ve_rows is not None]
    return Batch(
        rows=pad([row.rows for row in rows], batch_first=True),
        ve_rows=pad(ve_rows, batch_first=True) if ve_rows else None,
        targets=pad([row.targets for row in rows], batch_first=True, padding_value=IGNORED),
        lengths=torch.tensor([row.rows.shape[0] for row in rows], device=rows[0].rows.device),
    )


def build_batch(
    lm: NanoChat,
    tok: Tokenizer,
    soft: Soft,
    texts: Sequence[str | None],
    template: Template,
    names: Sequence[str] | None = None,
) -> Batch:
    """`build_row` for each utterance of a projected batch, then `collate`."""
    rows = []
    for i, (text, n) in enumerate(zip(texts, soft.lengths.tolist(), strict=True)):
        soft_ve = None if soft.ve_rows is None else soft.ve_rows[i, :n]
        name = names[i] if names else ""
        rows.append(build_row(lm, tok, soft.rows[i, :n], soft_ve, text, template, name))
    return collate(rows)


def _splice(around: Tensor, audio: Tensor, at: int) -> Tensor:
    """`audio` (N, ...) put into `around` (M, ...) before position `at`."""
    return torch.cat([around[:at], audio, around[at:]])


def _check_length(n: int, lm: NanoChat, name: str) -> None:
    limit = ROPE_FACTOR * lm.config.sequence_len
    if n > limit:
        raise OmniError(
            f"a row of {n} positions, the LM's rotary table ends at {limit}",
            where=name,
            mend="leave the utterance out, or stack more frames to a soft token",
        )
