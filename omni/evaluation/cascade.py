"""The cascade control: plain speech recognition, then the LM, from the very same features.

A high WER leaves open who failed. Here Whisper's own decoder writes down what is in the features,
and the LM is given that text where it would have been given soft tokens. If the cascade does well
and the run does not, the words are in the features and the projector loses them; if both do badly,
no projector could have done much.

Must not know where features or transcripts come from, nor how the figures are printed.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch

from omni.bridge.losses import per_row, token_losses
from omni.bridge.prompt import as_soft, build_batch
from omni.bridge.turns import Template
from omni.evaluation import scoring
from omni.evaluation.figures import ENGLISH, Figures, UtteranceFigures
from omni.evaluation.intervals import ratio_interval
from omni.formats.shards import Sample
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import Tokenizer

_Summed = Literal["ce_cascade", "gap_cascade", "wer_cascade", "cer_cascade"]
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def add_cascade(
    figures: Figures,
    lm: NanoChat,
    tok: Tokenizer,
    template: Template,
    samples: Sequence[Sample],
    transcribe: Callable[[Sequence[np.ndarray], int], list[str]],
    batch_size: int = 32,
    language: str = ENGLISH,
) -> None:
    """Add the cascade's figures to those of `omni.evaluation.evaluate.evaluate`, in place.

    Args:
        figures: of `samples`; the utterances that the run transcribed are compared.
        transcribe: features and a batch size to plain transcripts, as Whisper's decoder does.

    Adds:
        wer_cascade, or cer_cascade: of the transcripts, as `wer` or `cer` and of the same utterances;
        ce_cascade: nats a target token of the reference, the LM reading the transcript (as `spell`
            writes it) in the place of soft tokens;
        gap_cascade: that minus the CE with soft tokens on the same utterances: negative where the
            LM gets more from the transcript than from the projector;
        intervals of the three; `cascade` in each compared utterance and example, and `ce_cascade`
            and `errors_cascade` in the utterances. Nothing where nothing was decoded.
    """
    compared = [u for u in figures["utterances"] if "hypothesis" in u]
    if not compared:
        return
    by_id = {s.meta["id"]: s for s in samples}
    heard = transcribe([by_id[u["id"]].features for u in compared], batch_size)
    alphabet = set("".join(s.meta["text_norm"] for s in samples))
    read = [spell(text, alphabet, language) for text in heard]
    nll = _scores(lm, tok, template, read, [u["reference"] for u in compared], batch_size)
    for u, text, loss in zip(compared, heard, nll, strict=True):
        u["cascade"] = text
        u["ce_cascade"] = float(loss) / u["n_tokens"]
        _, edits, chars = scoring.score(u["reference"], text, language)
        u["errors_cascade"], u["char_errors_cascade"] = [edits.s, edits.d, edits.i], chars.total
    transcripts = {u["id"]: u["cascade"] for u in compared}
    for example in figures["examples"]:
        example["cascade"] = transcripts[example["id"]]
    _add_sums(figures, compared, nll)


def _add_sums(figures: Figures, compared: Sequence[UtteranceFigures], nll: np.ndarray) -> None:
    """The figures of the split, with their intervals."""
    tokens = np.array([u["n_tokens"] for u in compared])
    more = nll - np.array([u["ce"] for u in compared]) * tokens
    sums: list[tuple[_Summed, Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]]
    sums = [("ce_cascade", nll, tokens), ("gap_cascade", more, tokens)]
    if figures.get("unit") == "characters":
        wrong = [u["char_errors_cascade"] for u in compared]
        sums.append(("cer_cascade", wrong, [u["chars"] for u in compared]))
    elif any(u["words"] for u in compared):
        wrong = [sum(u["errors_cascade"]) for u in compared]
        sums.append(("wer_cascade", wrong, [u["words"] for u in compared]))
    for name, top, bottom in sums:
        figures[name] = float(np.sum(top) / np.sum(bottom))
        figures["intervals"][name] = ratio_interval(top, bottom)


def spell(text: str, alphabet: Iterable[str], language: str = ENGLISH) -> str:
    """A transcript as a corpus writes its own: in lower case, with no character that it never uses.

    LibriSpeech has no punctuation and no digits; Whisper writes both. Integers below a thousand
    become English words where the corpus is English without digits, and punctuation becomes spaces
    (apostrophes vanish) where it has none. Vowel signs and other marks on letters stay.

    Args:
        alphabet: the characters that occur in the corpus's training text.
    """
    allowed = set(alphabet)
    text = text.lower().replace("’", "'")
    if language == ENGLISH and not allowed & set("0123456789"):
        text = re.sub(r"\d+", lambda found: _in_words(found[0]), text)
    if "'" not in allowed:
        text = text.replace("'", "")
    kept = (
        c if c.isalnum() or c in allowed or unicodedata.category(c)[0] == "M" else " " for c in text
    )
    return " ".join("".join(kept).split())


@torch.inference_mode()
def _scores(
    lm: NanoChat,
    tok: Tokenizer,
    template: Template,
    read: Sequence[str],
    texts: Sequence[str],
    batch_size: int,
) -> np.ndarray:
    """Summed nats (n,) of each reference after the text that was read, in the audio's place."""
    order = sorted(range(len(texts)), key=lambda i: len(read[i]))
    nll = np.zeros(len(texts))
    for begin in range(0, len(order), batch_size):
        at = order[begin : begin + batch_size]
        soft = as_soft(lm, [tok.encode(read[i]) for i in at])
        batch = build_batch(lm, tok, soft, [texts[i] for i in at], template, heard=False)
        losses = token_losses(lm, batch)
        nll[at] = per_row(losses.nll, losses.row, len(at))
    return nll


def _in_words(digits: str) -> str:
    """`7` as seven, `142` as one hundred forty two; a thousand and more, or 007, stay as they are."""
    n = int(digits)
    if n > 999 or str(n) != digits:
        return digits
    hundreds, rest = divmod(n, 100)
    words = [_ONES[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words.append(_TENS[rest // 10 - 2])
        rest %= 10
        words += [_ONES[rest]] if rest else []
    elif rest or not hundreds:
        words.append(_ONES[rest])
    return " ".join(words)
