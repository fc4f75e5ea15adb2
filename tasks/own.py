"""What the frozen LM itself answers to a transcript: for the audio to draw from it too, and to replay.

The answers are greedy, so that they are the same each time; they are kept in a file as they come, so
that a killed mix goes on. Must not know the table.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from omni.bridge.prompt import as_soft, build_batch, row_limit
from omni.bridge.turns import choose_template
from omni.errors import OmniError
from omni.nanochat import load_checkpoint
from omni.nanochat.generate import generate

MOST_TOKENS = 64  # of an answer
_BATCH = 32


class OwnAnswers:
    """Callable on (transcript, prompt)s.

    Args:
        lm: a name that `load_checkpoint` knows.
        device: to compute on.
        kept: file that answers are kept in until the table is there.
        progress: called with how many are there, of how many.
    """

    def __init__(
        self,
        lm: str,
        device: torch.device,
        kept: Path,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self._lm, self._tok, meta = load_checkpoint(lm, device)
        self._meta, self._kept, self._progress = meta, kept, progress
        self._fingerprint = self._lm.fingerprint()

    def __call__(self, asked: Sequence[tuple[str, str]]) -> list[str]:
        """The LM's answer to each; "" where it has none.

        Raises:
            OmniError: a transcript that is longer than the LM's rows.
        """
        known = self._read()
        left = [pair for pair in dict.fromkeys(asked) if self._name(pair) not in known]
        left.sort(key=lambda pair: (pair[1], len(pair[0]), pair[0]))
        done = 0
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        with self._kept.open("a", encoding="utf-8") as file:
            for prompt, pairs in itertools.groupby(left, key=lambda pair: pair[1]):
                texts = [text for text, _ in pairs]
                for part in (texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)):
                    for text, answer in zip(part, self._answers(part, prompt), strict=True):
                        name = self._name((text, prompt))
                        known[name] = answer
                        file.write(json.dumps([name, answer]) + "\n")
                    file.flush()
                    done += len(part)
                    self._progress(done, len(left))
        return [known[self._name(pair)] for pair in asked]

    @torch.inference_mode()
    def _answers(self, texts: Sequence[str], prompt: str) -> list[str]:
        """To transcripts of about one length that stand where audio will, before the prompt."""
        lm, tok = self._lm, self._tok
        template = choose_template(self._meta, f" {prompt}")
        soft = as_soft(lm, [tok.encode(text) for text in texts])
        batch = build_batch(lm, tok, soft, [None] * len(texts), template, heard=False)
        room = [min(MOST_TOKENS, row_limit(lm) - n) for n in batch.lengths.tolist()]
        stops = {template.end(tok), tok.special("bos")}
        found = generate(lm, batch.rows, batch.ve_rows, batch.lengths, stops, room)
        # Half an answer teaches to stop in mid-sentence.
        return [
            tok.decode(ids).strip() if len(ids) < most else ""
            for ids, most in zip(found, room, strict=True)
        ]

    def _name(self, pair: tuple[str, str]) -> str:
        text = json.dumps([self._fingerprint, *pair])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _read(self) -> dict[str, str]:
        """What an earlier start kept; a half last line is of one that was killed."""
        if not self._kept.exists():
            return {}
        known = {}
        lines = self._kept.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                name, answer = json.loads(line)
            except ValueError as error:
                where = f"{self._kept}, line {number}"
                raise OmniError("no answer that was kept", where, "remove the file") from error
            known[str(name)] = str(answer)
        if lines[-1]:
            with self._kept.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines[:-1]))
        return known

    def forget(self) -> None:
        """Remove what was kept: the table is there."""
        self._kept.unlink(missing_ok=True)
