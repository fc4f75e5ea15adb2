"""Train the demo LM: a small, real nanochat of era E that repeats what it is told.

    python scripts/train_demo_lm.py --out omni/nanochat/demo

Text: the King James Bible and five Austen novels (scripts/public_text.py), as plain documents, and
as chat rows in which the assistant repeats what the user said: sentences in lower case, as printed,
and words of the text in random order, so that copying can't lean on grammar. No row holds the
grammar of the demo corpus; sentences of that grammar only serve to measure.

Writes upstream's file layout: model_NNNNNN.pt (bf16 matrices), meta_NNNNNN.json, tokenizer.pkl.
About 40 minutes on one core. Killed, it goes on from the last saved step.

The LM of `scripts/beyond_grammar.py`, which hears little speech and hears it badly:

    python scripts/train_demo_lm.py --out work/lm512 --vocab 512 --steps 2000
    python scripts/train_demo_lm.py --init work/lm512 --out work/lm512-garbled --garble 0.6 \
        --steps 800 --lr 1e-3 --seed 1
"""

import argparse
import json
import math
import random
import time
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import rustbpe
import tiktoken
import torch
import torch.nn.functional as F
from public_text import bible_verses, normalise, novel_paragraphs, sentences
from torch import Tensor

from omni.bridge.turns import DEFAULT_PROMPT
from omni.nanochat import NanoChat, NanoChatConfig, load_checkpoint, random_init
from omni.nanochat.config import config_dict
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer

VOCAB = 2048  # of the embedded LM
CONFIG = NanoChatConfig(512, VOCAB, 4, 2, 2, 128, "SSSL")
# nanochat's own split pattern: numbers in groups of at most two digits.
PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}|"""
    r""" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)
SHAPES = ((32, 128), (32, 128), (32, 128), (10, 384))  # rows x positions, in turn
REPEAT_SHARE = 0.7  # of the rows


class Rows:
    """An endless, seeded stream of training lines: ids and targets (-1 where not supervised)."""

    def __init__(
        self, tok: Tokenizer, documents: list[str], seed: int, garble: float = 0.0
    ) -> None:
        self.tok, self.rng, self.garble = tok, random.Random(seed), garble
        self.documents = documents
        self.sentences = [s for s in sentences(documents) if 3 <= len(s.split()) <= 60]
        counts = Counter(word for d in documents for word in normalise(d).split())
        self.words = [w for w, n in counts.items() if n >= 3]
        # The square root lifts rare words: each must be copied, however seldom it is written.
        self.weights = list(accumulate(counts[w] ** 0.5 for w in self.words))

    def said(self, most: int) -> str:
        """Something a user may say: a sentence, or words in random order."""
        kind, length = self.rng.random(), self.rng.randint(2, most)
        if kind < 0.35:
            return " ".join(self.rng.choices(self.words, cum_weights=self.weights, k=length))
        words = self.rng.choice(self.sentences).split()
        while len(words) < length:
            words += self.rng.choice(self.sentences).split()
        text = " ".join(words[:length])
        return text if kind > 0.85 else normalise(text) or "yes"

    def repeat(self, most: int) -> tuple[list[int], list[int]]:
        """A chat row in which the assistant repeats the user; only its words are supervised."""
        special, text = self.tok.special, self.said(most)
        asked = DEFAULT_PROMPT if self.rng.random() < 0.6 else ""
        head = [special("bos"), special("user_start")]
        # Text and prompt are encoded apart, as audio and prompt are later.
        head += self.heard(self.tok.encode(text)) + self.tok.encode(asked)
        head += [special("user_end"), special("assistant_start")]
        answer = [*self.tok.encode(text), special("assistant_end")]
        return head + answer, [-1] * len(head) + answer

    def heard(self, ids: list[int]) -> list[int]:
        """The ids as a poor listener has them, in `garble` of the rows: up to a third of them lost,
        doubled, mistaken for another, or with one more before them. The answer stays right."""
        if self.rng.random() >= self.garble:
            return ids
        rate, words = self.rng.uniform(0, 1 / 3), self.tok.vocab_size - len(SPECIAL_NAMES)
        out: list[int] = []
        for i in ids:
            fault = self.rng.choice(["lose", "double", "mistake", "insert"])
            if self.rng.random() >= rate:
                out.append(i)
            elif fault == "double":
                out += [i, i]
            elif fault == "mistake":
                out.append(self.rng.randrange(words))
            elif fault == "insert":
                out += [self.rng.randrange(words), i]
        return out

    def document(self, most: int) -> tuple[list[int], list[int]]:
        """Running text of at most `most` ids, every one of them supervised."""
        at = self.rng.randrange(len(self.documents))
        ids = self.tok.encode(" ".join(self.documents[at : at + 4]))
        ids = [self.tok.special("bos"), *ids][: max(most, 2)]
        return ids, [-1, *ids[1:]]

    def line(self, length: int) -> tuple[list[int], list[int]]:
        """Rows packed to `length + 1` positions; a document is cropped to fill the rest."""
        ids: list[int] = []
        targets: list[int] = []
        while len(ids) <= length:
            room = length + 1 - len(ids)
            if self.rng.random() < REPEAT_SHARE:
                row = self.repeat(max(3, min(length // 8, 40)))
                if len(row[0]) > room:  # half a repetition teaches nothing
                    row = self.document(room)
            else:
                row = self.document(self.rng.randint(16, length))
            ids, targets = ids + row[0][:room], targets + row[1][:room]
        return ids, targets

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """ids (B, T) and the targets of each position (B, T)."""
        rows, length = SHAPES[step % len(SHAPES)]
        lines = [self.line(length) for _ in range(rows)]
        ids = torch.tensor([line[0][:-1] for line in lines])
        return ids, torch.tensor([line[1][1:] for line in lines])


def train_tokenizer(documents: list[str], vocab: int) -> Tokenizer:
    """A BPE of `vocab` ids, the nine specials last, trained half on text as printed, half lower."""
    trainer = rustbpe.Tokenizer()
    texts = documents + [normalise(d) for d in documents]
    trainer.train_from_iterator(iter(texts), vocab - len(SPECIAL_NAMES), pattern=PATTERN)
    ranks = {bytes(piece): rank for piece, rank in trainer.get_mergeable_ranks()}
    specials = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(SPECIAL_NAMES)}
    encoding = tiktoken.Encoding(
        "rustbpe", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials
    )
    return Tokenizer(encoding)


def optimiser(lm: NanoChat, lr: float) -> torch.optim.AdamW:
    """AdamW; lookup tables learn five times faster, since few rows meet a gradient at once."""
    tables = [p for n, p in lm.named_parameters() if "wte" in n or "value_embeds" in n]
    rest = [p for n, p in lm.named_parameters() if not ("wte" in n or "value_embeds" in n)]
    groups = [{"params": tables, "lr": 5 * lr}, {"params": rest, "lr": lr}]
    for group in groups:
        group["base_lr"] = group["lr"]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)


def schedule(step: int, steps: int) -> float:
    """Warm up over 100 steps, stay, then fall linearly to zero over the last 45 %."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.45 * steps))


@torch.no_grad()
def repeat_errors(lm: NanoChat, rows: Rows, n: int) -> float:
    """Share of held-out chat rows that greedy decoding would not repeat to the letter."""
    wrong = 0
    for _ in range(n):
        ids, targets = rows.repeat(24)
        best = lm(torch.tensor([ids[:-1]])).argmax(-1)[0]
        aim = torch.tensor(targets[1:])
        wrong += bool((best != aim)[aim != -1].any())
    return wrong / n


def save(out: Path, lm: NanoChat, tok: Tokenizer, step: int, meta: dict[str, object]) -> None:
    """Upstream's layout, matrices in bf16 and one-dimensional lambdas in fp32."""
    out.mkdir(parents=True, exist_ok=True)
    state = {k: t.bfloat16() if t.ndim > 1 else t.clone() for k, t in lm.state_dict().items()}
    torch.save(state, out / f"model_{step:06d}.pt")
    meta = {"step": step, "model_config": config_dict(lm.config), **meta}
    (out / f"meta_{step:06d}.json").write_text(json.dumps(meta, indent=2) + "\n")
    tok.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--vocab", type=int, default=VOCAB)
    parser.add_argument("--init", type=Path, help="start from this checkpoint folder's LM")
    parser.add_argument("--garble", type=float, default=0.0,
        help="share of chat rows in which the user is heard with faults")  # fmt: skip
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    documents = bible_verses() + novel_paragraphs()
    held_out = documents[::50]
    documents = [d for i, d in enumerate(documents) if i % 50]
    if args.init:
        lm, tok, _ = load_checkpoint(args.init)
        lm.train().requires_grad_(True)
    else:
        tok = train_tokenizer(documents, args.vocab)
        lm = random_init(replace(CONFIG, vocab_size=args.vocab), "E", args.seed)
    adam = optimiser(lm, args.lr)
    resume, start, began = args.out / "train_state.pt", 0, time.time()
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        lm.load_state_dict(state["model"])
        adam.load_state_dict(state["optimiser"])
        start = state["step"]
    rows = Rows(tok, documents, args.seed + 1000 * start, args.garble)
    unseen = Rows(tok, held_out, args.seed + 1)
    print(f"{sum(p.numel() for p in lm.parameters()):,} parameters, {len(documents):,} documents")
    for step in range(start, args.steps):
        for group in adam.param_groups:
            group["lr"] = group["base_lr"] * schedule(step, args.steps)
        ids, targets = rows.batch(step)
        keep = targets != -1
        logits = lm.forward_embeds(*lm.embed(ids), positions=keep)
        loss = F.cross_entropy(logits, targets[keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        if not math.isfinite(loss.item()):
            raise SystemExit(f"loss is {loss.item()} at step {step}")
        if (step + 1) % 50 == 0:
            rate = (time.time() - began) / (step + 1 - start)
            eta = rate * (args.steps - step - 1) / 60
            print(f"step {step + 1} loss {loss.item():.3f} {rate:.2f} s/step, {eta:.0f} min left")
        if (step + 1) % 300 == 0 or step + 1 == args.steps:
            errors = repeat_errors(lm, Rows(tok, held_out, 7), 100)
            print(f"step {step + 1}: {errors:.0%} of unseen rows not repeated to the letter")
            args.out.mkdir(parents=True, exist_ok=True)
            torch.save(
                {"model": lm.state_dict(), "optimiser": adam.state_dict(), "step": step + 1}, resume
            )
    errors = repeat_errors(lm, unseen, 400)
    spent = round(time.time() - began)
    meta: dict[str, object] = {
        "val_bpb": None,  # upstream's field; this LM is judged by what it repeats
        "user_config": {
            "run": "demo",
            "num_iterations": args.steps,
            "matrix_lr": args.lr,
            "garble": args.garble,
            "seed": args.seed,
        },
        "repeat_errors": errors,
        "seconds": spent,
    }
    save(args.out, lm, tok, args.steps, meta)
    print(f"{errors:.2%} of 400 unseen rows not repeated to the letter; {spent} s; {args.out}")


if __name__ == "__main__":
    main()
