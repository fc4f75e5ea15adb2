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
from omni.formats.run_files import Kind, TemplateConfig
from omni.nanochat.model import NanoChat
from omni.nanochat.positions import ROPE_FACTOR
from omni.nanochat.tokenizer import Tokenizer

DEFAULT_PROMPT = " Repeat that."
IGNORED = -1  # nanochat's own mark of a position without a target


@dataclass(frozen=True)
class Template:
    """How a row is laid out: `kind` is "sft" or "base"; `prompt` follows the audio.

    `audio_first` puts the audio before bos, for comparison: no row that the LM was trained on
    begins so.
    """

    kind: Kind
    prompt: str
    audio_first: bool = False

    def to_json(self) -> TemplateConfig:
        """As a run's config holds it."""
        return {"kind": self.kind, "prompt": self.prompt, "audio_first": self.audio_first}

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

    def around(self, tok: Tokenizer) -> int:
        """Positions of a row besides its audio and its text, the end token included."""
        return len(self.before(tok)) + len(self.after(tok)) + 1

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
    kind: Kind = "base" if meta.get("kind", "sft") == "base" else "sft"
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


@dataclass
class Batch:
    """Rows padded on the right, the only side the LM allows.

    rows: (B, T, C); ve_rows: (B, T, n_ve, kv_dim) or None; targets: (B, T) int64;
    lengths: (B,) int64, real positions; asked: (N,) int64, where a target stands, as b * T + t in
    rising order: known before anything is computed, so that nobody has to ask the device for it.
    """

    rows: Tensor
    ve_rows: Tensor | None
    targets: Tensor
    lengths: Tensor
    asked: Tensor

    @property
    def positions(self) -> Tensor:
        """(B, T) bool, where a target stands: the only places lm_head is needed at."""
        return self.targets != IGNORED


def build_batch(
    lm: NanoChat,
    tok: Tokenizer,
    soft: Soft,
    texts: Sequence[str | None],
    template: Template,
    names: Sequence[str] | None = None,
    n_soft: Sequence[int] | None = None,
    multiple: int = 1,
) -> Batch:
    """Splice each utterance's audio between the template's ids, the rest from the LM's tables.

    One lookup a table, one scatter, one copy of the layout to the device, whatever the batch.

    Args:
        soft: of a projector; without value rows the audio's are zeros, never those of a dummy id.
        texts: the transcripts to be learned; None ends a row where decoding begins.
        template: from `choose_template`.
        names: the utterances, for the error message.
        n_soft: `soft.lengths` on the host, where the caller has them: reading them from a device
            would wait for it.
        multiple: rows are padded to a multiple of so many positions, as far as the LM's rows reach,
            so that fewer shapes occur.

    Raises:
        OmniError: a row is longer than the LM's rotary table.
    """
    counts = soft.lengths.tolist() if n_soft is None else list(n_soft)
    layouts = [
        _Layout.of(lm, tok, n, text, template, names[i] if names else "")
        for i, (text, n) in enumerate(zip(texts, counts, strict=True))
    ]
    B, N = len(layouts), soft.rows.shape[1]
    longest = max(layout.length for layout in layouts)
    T = max(longest, min(-(-longest // multiple) * multiple, row_limit(lm)))
    ids = [token for layout in layouts for token in layout.ids]
    text_to = [b * T + t for b, layout in enumerate(layouts) for t in layout.text_places]
    audio_to = [b * T + t for b, layout in enumerate(layouts) for t in layout.audio_places]
    audio_from = [b * N + t for b, n in enumerate(counts) for t in range(n)]
    asked = [b * T + t for b, layout in enumerate(layouts) for t in layout.asked_places]
    answers = [token for layout in layouts for token in layout.answer]
    lengths = [layout.length for layout in layouts]
    host = (ids, text_to, audio_to, audio_from, asked, answers, lengths)
    ids_, text_at, audio_at, picked, asked_, answers_, lengths_ = _to_device(host, soft.rows.device)

    text_rows, text_ve = lm.embed(ids_[None])  # (1, M, C), (1, M, n_ve, kv_dim) or None
    rows = _place(B * T, text_rows[0], text_at, soft.rows, picked, audio_at)
    ve_rows = None
    if text_ve is not None:
        ve_rows = _place(B * T, text_ve[0], text_at, soft.ve_rows, picked, audio_at)
        ve_rows = ve_rows.unflatten(0, (B, T))
    targets = torch.full((B * T,), IGNORED, dtype=torch.long, device=soft.rows.device)
    targets = targets.index_copy(0, asked_, answers_).view(B, T)
    return Batch(rows.unflatten(0, (B, T)), ve_rows, targets, lengths_, asked_)


def as_soft(lm: NanoChat, ids: Sequence[Sequence[int]]) -> Soft:
    """Text in the place of audio: the LM's own rows of these ids, padded on the right."""
    lengths = torch.tensor([len(row) for row in ids], device=lm.device)
    padded = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long, device=lm.device)
    for row, own in zip(padded, ids, strict=True):
        row[: len(own)] = torch.tensor(own, dtype=torch.long)
    return Soft(*lm.embed(padded), lengths)


def build_row(
    lm: NanoChat,
    tok: Tokenizer,
    soft_rows: Tensor,
    soft_ve: Tensor | None,
    text: str | None,
    template: Template,
    name: str = "",
) -> Row:
    """`build_batch` of one utterance.

    Args:
        soft_rows: (N, C) projected audio; N = 0 is a row without audio (a control).
        soft_ve: (N, n_ve, kv_dim), or None: zeros.

    Raises:
        OmniError: the row is longer than the LM's rotary table.
    """
    n = soft_rows.shape[0]
    values = None if soft_ve is None else soft_ve[None]
    soft = Soft(soft_rows[None], values, torch.tensor([n]))
    batch = build_batch(lm, tok, soft, [text], template, [name], [n])
    ve_rows = None if batch.ve_rows is None else batch.ve_rows[0]
    return Row(batch.rows[0], ve_rows, batch.targets[0], len(template.before(tok)), n)


def collate(rows: Sequence[Row]) -> Batch:
    """Right-pad rows to the longest with zeros and `IGNORED` targets."""
    pad = torch.nn.utils.rnn.pad_sequence
    ve_rows = [row.ve_rows for row in rows if row.ve_rows is not None]
    targets = pad([row.targets for row in rows], batch_first=True, padding_value=IGNORED)
    return Batch(
        rows=pad([row.rows for row in rows], batch_first=True),
        ve_rows=pad(ve_rows, batch_first=True) if ve_rows else None,
        targets=targets,
        lengths=torch.tensor([row.rows.shape[0] for row in rows], device=rows[0].rows.device),
        asked=(targets.flatten() != IGNORED).nonzero()[:, 0],
    )


@dataclass(frozen=True)
class _Layout:
    """Where each piece of one row stands, before any tensor: before, audio, after, answer."""

    ids: list[int]  # all tokens of the row, in order
    answer: list[int]  # the last of them: what is to be learned
    start: int  # first position of the audio
    n_soft: int

    @classmethod
    def of(
        cls,
        lm: NanoChat,
        tok: Tokenizer,
        n_soft: int,
        text: str | None,
        template: Template,
        name: str,
    ) -> "_Layout":
        before = template.before(tok)
        answer = [] if text is None else [*tok.encode(text), template.end(tok)]
        layout = cls([*before, *template.after(tok), *answer], answer, len(before), n_soft)
        _check_length(layout.length, lm, name)
        return layout

    @property
    def length(self) -> int:
        return len(self.ids) + self.n_soft

    @property
    def audio_places(self) -> range:
        return range(self.start, self.start + self.n_soft)

    @property
    def text_places(self) -> list[int]:
        return [*range(self.start), *range(self.start + self.n_soft, self.length)]

    @property
    def asked_places(self) -> range:
        """Position t is asked for the id at t + 1: from the one before the answer to its last but
        one."""
        first = self.length - len(self.answer) - 1
        return range(first, first + len(self.answer))


def _to_device(lists: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
    """Int64 tensors of several lists, in one copy that waits for nobody."""
    flat = torch.tensor([value for part in lists for value in part], dtype=torch.long)
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    return list(flat.to(device).split([len(part) for part in lists]))


def _place(
    n: int,
    text: Tensor,
    text_at: Tensor,
    audio: Tensor | None,
    picked: Tensor,
    audio_at: Tensor,
) -> Tensor:
    """(n, ...) zeros with `text` (M, ...) and the valid ones of `audio` (B, N, ...) in their places;
    in the audio's dtype, or the text's where there is no audio."""
    # index_put keeps where it wrote for the backward pass; index_copy would keep what it wrote too.
    if audio is None:
        return text.new_zeros(n, *text.shape[1:]).index_put((text_at,), text)
    spoken = audio.flatten(0, 1).index_select(0, picked)
    out = audio.new_zeros(n, *audio.shape[2:])
    at = torch.cat([text_at, audio_at])
    return out.index_put((at,), torch.cat([text.to(audio.dtype), spoken]))


def row_limit(lm: NanoChat) -> int:
    """Positions a row may have: the LM's rotary table ends there."""
    return ROPE_FACTOR * lm.config.sequence_len


def _check_length(n: int, lm: NanoChat, name: str) -> None:
    limit = row_limit(lm)
    if n > limit:
        raise OmniError(
            f"a row of {n} positions, the LM's rotary table ends at {limit}",
            where=name,
            mend="leave the utterance out, or stack more frames to a soft token",
        )
