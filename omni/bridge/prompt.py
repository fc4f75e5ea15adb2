"""The one place where a row becomes tensors: training, evaluation and transcription all call it.

Where each id stands is turns.py's to say. Must not know where soft tokens come from, nor what is done
with the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from omni.bridge.projector import Soft
from omni.bridge.turns import Layout, Template, Turn, lay_out
from omni.errors import OmniError
from omni.nanochat.model import NanoChat
from omni.nanochat.positions import ROPE_FACTOR
from omni.nanochat.tokenizer import Tokenizer

IGNORED = -1  # nanochat's own mark of a position without a target


@dataclass
class Row:
    """One utterance, ready for the LM.

    rows: (T, C); ve_rows: (T, n_ve, kv_dim) or None; targets: (T,) int64, at each position the
    id that should come next, `IGNORED` where nothing is asked. The audio is
    `rows[audio_start : audio_start + n_soft]`. heard: whether the row counts as holding audio.
    """

    rows: Tensor
    ve_rows: Tensor | None
    targets: Tensor
    audio_start: int
    n_soft: int
    heard: bool = True


@dataclass
class Batch:
    """Rows padded on the right, the only side the LM allows.

    rows: (B, T, C); ve_rows: (B, T, n_ve, kv_dim) or None; targets: (B, T) int64;
    lengths: (B,) int64, real positions; asked: (N,) int64, where a target stands, as b * T + t in
    rising order: known before anything is computed, so that nobody has to ask the device for it;
    heard: which rows hold audio, (B,) bool, or True for all of them and False for none: adapters act
    in these rows and in no others.
    """

    rows: Tensor
    ve_rows: Tensor | None
    targets: Tensor
    lengths: Tensor
    asked: Tensor
    heard: Tensor | bool = True

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
    heard: bool | None = None,
) -> Batch:
    """`build_turns` of one turn each: an utterance, the template's prompt, and its text.

    Args:
        texts: the transcripts to be learned; None ends a row where decoding begins.
    """
    rows = [template.repeat(text) for text in texts]
    return build_turns(lm, tok, soft, rows, template, names, n_soft, multiple, heard)


def build_turns(
    lm: NanoChat,
    tok: Tokenizer,
    soft: Soft | None,
    rows: Sequence[Sequence[Turn]],
    template: Template,
    names: Sequence[str] | None = None,
    n_soft: Sequence[int] | None = None,
    multiple: int = 1,
    heard: bool | None = None,
) -> Batch:
    """Splice audio between the ids of each row's turns, the rest from the LM's tables.

    One lookup a table, one scatter, one copy of the layout to the device, whatever the batch.

    Args:
        soft: of a projector, an utterance for each turn with audio, in order; without value rows the
            audio's are zeros, never those of a dummy id. None where no turn has audio.
        rows: the turns of each row.
        template: from `choose_template`.
        names: the rows, for the error message.
        n_soft: `soft.lengths` on the host, where the caller has them: reading them from a device
            would wait for it.
        multiple: rows are padded to a multiple of so many positions, as far as the LM's rows reach,
            so that fewer shapes occur.
        heard: whether the rows count as holding audio; None: those that hold a soft token. False for
            text in the place of audio (`as_soft`).

    Raises:
        OmniError: a row is longer than the LM's rotary table; rows that `lay_out` refuses.
    """
    if soft is None:
        soft = no_soft(lm)
    counts = soft.lengths.tolist() if n_soft is None else list(n_soft)
    return splice(lm, soft, lay_out(rows, counts, template, tok), names, multiple, heard)


def splice(
    lm: NanoChat,
    soft: Soft,
    layouts: Sequence[Layout],
    names: Sequence[str] | None = None,
    multiple: int = 1,
    heard: bool | None = None,
) -> Batch:
    """`build_turns` of rows that are laid out already."""
    for i, layout in enumerate(layouts):
        _check_length(layout.length, lm, names[i] if names else "")
    B, N, device = len(layouts), soft.rows.shape[1], soft.rows.device
    longest = max(layout.length for layout in layouts)
    T = max(longest, min(-(-longest // multiple) * multiple, row_limit(lm)))
    pieces = [(b, piece) for b, layout in enumerate(layouts) for piece in layout.pieces]
    speaks = [any(piece.n for piece in layout.pieces) for layout in layouts]
    host = (
        [token for layout in layouts for token in layout.ids],
        [b * T + t for b, layout in enumerate(layouts) for t in layout.text_places],
        [b * T + piece.start + t for b, piece in pieces for t in range(piece.n)],
        [piece.audio * N + t for _, piece in pieces for t in range(piece.n)],
        [b * T + t for b, layout in enumerate(layouts) for t in layout.asked],
        [token for layout in layouts for token in layout.answers],
        [layout.length for layout in layouts],
        [int(one) for one in speaks],
    )
    ids, text_at, audio_at, picked, asked, answers, lengths, spoken = _to_device(host, device)
    if heard is None:
        heard_ = spoken.bool() if len({*speaks}) > 1 else speaks[0]
    else:
        heard_ = heard

    text_rows, text_ve = lm.embed(ids[None])  # (1, M, C), (1, M, n_ve, kv_dim) or None
    rows = _place(B * T, text_rows[0], text_at, soft.rows, picked, audio_at)
    ve_rows = None
    if text_ve is not None:
        ve_rows = _place(B * T, text_ve[0], text_at, soft.ve_rows, picked, audio_at)
        ve_rows = ve_rows.unflatten(0, (B, T))
    targets = torch.full((B * T,), IGNORED, dtype=torch.long, device=device)
    targets = targets.index_copy(0, asked, answers).view(B, T)
    return Batch(rows.unflatten(0, (B, T)), ve_rows, targets, lengths, asked, heard_)


def no_soft(lm: NanoChat) -> Soft:
    """Soft tokens of no utterance, for rows of text alone."""
    rows, values = lm.embed(torch.zeros(0, 0, dtype=torch.long, device=lm.device))
    return Soft(rows, values, torch.zeros(0, dtype=torch.long, device=lm.device))


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
    heard: bool | None = None,
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
    batch = build_batch(lm, tok, soft, [text], template, [name], [n], heard=heard)
    ve_rows = None if batch.ve_rows is None else batch.ve_rows[0]
    start = len(template.before(tok))
    return Row(batch.rows[0], ve_rows, batch.targets[0], start, n, bool(batch.heard))


def collate(rows: Sequence[Row]) -> Batch:
    """Right-pad rows to the longest with zeros and `IGNORED` targets."""
    pad = torch.nn.utils.rnn.pad_sequence
    ve_rows = [row.ve_rows for row in rows if row.ve_rows is not None]
    targets = pad([row.targets for row in rows], batch_first=True, padding_value=IGNORED)
    heard: Tensor | bool = rows[0].heard
    if any(row.heard != heard for row in rows):
        heard = torch.tensor([row.heard for row in rows], device=rows[0].rows.device)
    return Batch(
        rows=pad([row.rows for row in rows], batch_first=True),
        ve_rows=pad(ve_rows, batch_first=True) if ve_rows else None,
        targets=targets,
        lengths=torch.tensor([row.rows.shape[0] for row in rows], device=rows[0].rows.device),
        asked=(targets.flatten() != IGNORED).nonzero()[:, 0],
        heard=heard,
    )


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
