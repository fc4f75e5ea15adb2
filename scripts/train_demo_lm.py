"""Train the demo LM: a small, real nanochat of era E that repeats what it is told and answers about it.

    python scripts/train_demo_lm.py --rows answers --out work/1 --phases find=300,point=400,choose=1400
    python scripts/train_demo_lm.py --rows answers --init work/1 --grow 2 --out work/2 \\
        --phases point=300 --seed 1
    python scripts/train_demo_lm.py --rows answers --init work/2 --out work/3 --phases word=500 \\
        --seed 2
    python scripts/train_demo_lm.py --rows answers --init work/3 --point 4 --out work/4 --lr 0.01 \\
        --phases both=300,test=1000

The last is where letters should come: so far open questions are answered and letters are not, and
no step after `--point` has been run to its end.

Its rows: scripts/demo_questions.py (sentences of the demo corpus's grammar but the held-out ones, its
words and others in random order, asked about in several turns) and scripts/demo_rows.py. Other text: the
King James Bible and five Austen novels (scripts/public_text.py).

Writes upstream's file layout: model_NNNNNN.pt (bf16 matrices), meta_NNNNNN.json, tokenizer.pkl.
Killed, it goes on from the last saved step.

The LM of `scripts/beyond_grammar.py`, which only repeats, hears little speech and hears it badly:

    python scripts/train_demo_lm.py --out work/lm512 --vocab 512 --steps 2000
    python scripts/train_demo_lm.py --init work/lm512 --out work/lm512-garbled --garble 0.6 \\
        --steps 800 --lr 1e-3 --seed 1
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import rustbpe
import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo_measure import exact, measure
from demo_point import point_at_letters
from demo_questions import (
    PHASES,
    POINTED,
    WORDS,
    AnswerRows,
    Shares,
    grammar_sentences,
    held_out_sentences,
)
from demo_rows import RepeatRows, pad
from demo_start import grown, start_as_copier
from public_text import bible_verses, normalise, novel_paragraphs

from omni.bridge.prompt import IGNORED
from omni.nanochat import NanoChat, NanoChatConfig, load_checkpoint, random_init
from omni.nanochat.config import config_dict
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer
from tasks.wordings import CONTENT, NOTHING, REPEAT

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"
REPEATS = NanoChatConfig(512, 2048, 4, 2, 2, 128, "SSSL")
ANSWERS = NanoChatConfig(512, 1024, 4, 4, 4, 128, "L")
PLAN = "find=300,point=400,choose=1400"
N_TRAIN, N_JUDGE = 50_000, 600  # sentences of the grammar
# nanochat's own split pattern: numbers in groups of at most two digits.
PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}|"""
    r""" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"""
)


def train_tokenizer(texts: list[str], vocab: int) -> Tokenizer:
    """A BPE of `vocab` ids, the nine specials last."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), vocab - len(SPECIAL_NAMES), pattern=PATTERN)
    ranks = {bytes(piece): rank for piece, rank in trainer.get_mergeable_ranks()}
    specials = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(SPECIAL_NAMES)}
    encoding = tiktoken.Encoding(
        "rustbpe", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials
    )
    return Tokenizer(encoding)


def question_texts(documents: list[str]) -> list[str]:
    """What the tokenizer of an LM that answers is made from: wordings and the grammar's words, so
    often that each word of them is one id, and some of the documents."""
    kinds = [*CONTENT.values(), *NOTHING.values(), *REPEAT.values()]
    asked = [t.replace('"{word}"', "") for kind in kinds for t in kind.train]
    asked += [f" {t[0].upper()}{t[1:]}" for t in asked]
    words = [f"{w}\n {w}" for w in WORDS]
    return (asked + words) * 400 + [normalise(d) for d in documents[::8]]


class Optimiser:
    """Several as one, their rates following one schedule."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        self.groups = [group for part in parts for group in part.param_groups]
        self.rates = [float(group["lr"]) for group in self.groups]

    def step(self, factor: float) -> None:
        """One step at `factor` times the rates; gradients are dropped."""
        for group, rate in zip(self.groups, self.rates, strict=True):
            group["lr"] = rate * factor
        for part in self.parts:
            part.step()
            part.zero_grad(set_to_none=True)


def adam(lm: NanoChat, lr: float) -> Optimiser:
    """AdamW; lookup tables learn five times faster, since few rows meet a gradient at once."""
    tables = [p for n, p in lm.named_parameters() if "wte" in n or "value_embeds" in n]
    rest = [p for n, p in lm.named_parameters() if not ("wte" in n or "value_embeds" in n)]
    groups = [{"params": tables, "lr": 5 * lr}, {"params": rest, "lr": lr}]
    return Optimiser([torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)])


def muon(lm: NanoChat, lr: float) -> Optimiser:
    """Muon for the layers' matrices, which then learn to look up in a tenth of AdamW's steps; AdamW
    for all the rest, at a rate where tables move as fast."""
    named = dict(lm.named_parameters())
    matrices = {n: p for n, p in named.items() if ".h." in n and "gate" not in n}
    tables = [p for n, p in named.items() if "wte" in n or "value_embeds" in n]
    rest = [p for n, p in named.items() if n not in matrices and all(p is not t for t in tables)]
    groups = [{"params": tables, "lr": lr}, {"params": rest, "lr": lr / 4}]
    return Optimiser(
        [
            torch.optim.Muon(matrices.values(), lr=lr, momentum=0.95, weight_decay=0.0),
            torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0),
        ]
    )


class Recipe(NamedTuple):
    """How an LM is made. batch: of a step, ids (B, T) and targets (B, T); judge: figures on what it never trained on, from this many rows or questions of each kind."""

    lm: NanoChat
    tok: Tokenizer
    optimiser: Optimiser
    batch: Callable[[int], tuple[Tensor, Tensor]]
    judge: Callable[[int], dict[str, object]]
    end_weight: float  # of an answer's end, which is soon learned, against its words


def begin(
    args: argparse.Namespace, config: NanoChatConfig, texts: Callable[[], list[str]]
) -> tuple[NanoChat, Tokenizer]:
    """The LM to go on from, or a fresh one with a tokenizer made from `texts`."""
    if args.init:
        lm, tok, _ = load_checkpoint(args.init, dtype=torch.float32)
        lm.train().requires_grad_(True)
        if args.grow:
            lm = grown(lm, args.grow, args.seed)
        return lm, tok
    config = replace(config, vocab_size=args.vocab or config.vocab_size)
    return random_init(config, "E", args.seed), train_tokenizer(texts(), config.vocab_size)


def public_documents() -> tuple[list[str], list[str]]:
    """Public texts to train on, and one in fifty that only judge."""
    documents = bible_verses() + novel_paragraphs()
    return [d for i, d in enumerate(documents) if i % 50], documents[::50]


def repeating(args: argparse.Namespace, start: int) -> Recipe:
    """An LM that only repeats."""
    documents, held_out = public_documents()
    texts = lambda: documents + [normalise(d) for d in documents]  # noqa: E731
    lm, tok = begin(args, REPEATS, texts)
    rows = RepeatRows(tok, documents, args.seed + 1000 * start, args.garble)

    def judge(n: int) -> dict[str, object]:
        return {"repeat_errors": repeat_errors(lm, RepeatRows(tok, held_out, args.seed + 1), n)}

    optimiser = adam(lm, args.lr or 2e-3)
    return Recipe(lm, tok, optimiser, rows.batch, judge, 1.0)


def answering(args: argparse.Namespace, start: int) -> Recipe:
    """An LM that answers questions about a text it reads, and repeats it."""
    documents, held_out = public_documents()
    train = grammar_sentences(N_TRAIN, 1, held_out_sentences(MANIFESTS))
    unseen = grammar_sentences(N_JUDGE, 2, without={*train})
    lm, tok = begin(args, ANSWERS, lambda: question_texts(documents))
    if not args.init:
        start_as_copier(lm)
    rows = AnswerRows(tok, train, documents, args.seed + 1000 * start, args.garble)
    if args.point and not start:
        point_at_letters(lm, tok, args.point, *rows.single(600, POINTED))

    def judge(n: int) -> dict[str, object]:
        found: dict[str, object] = {
            "repeat_errors": repeat_errors(lm, RepeatRows(tok, held_out, args.seed + 1), n)
        }
        for role, wordings in (("train", "wordings of training"), ("eval", "held-out wordings")):
            found[wordings] = measure(lm, tok, unseen, role, n // 4 * 4)._asdict()
        return found

    optimiser = muon(lm, args.lr or 0.02)
    return Recipe(lm, tok, optimiser, lambda step: pad(rows.batch(args.plan[step])), judge, 0.2)


def plan(phases: str) -> list[Shares]:
    """The shares of each step, of "find=300,point=400": steps of each phase in order."""
    pairs = [part.split("=") for part in phases.split(",")]
    return [PHASES[name] for name, n in pairs for _ in range(int(n))]


def schedule(step: int, steps: int) -> float:
    """Warm up over 100 steps, stay, then fall linearly to zero over the last 45 %."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.45 * steps))


def repeat_errors(lm: NanoChat, rows: RepeatRows, n: int) -> float:
    """Share of unseen chat rows that greedy decoding would not repeat to the letter."""
    return sum(not exact(lm, [rows.repeat(24)])[0] for _ in range(n)) / n


def loss_of(recipe: Recipe, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of what is learned, ends of answers at their weight."""
    keep = targets != IGNORED
    logits = recipe.lm.forward_embeds(*recipe.lm.embed(ids), positions=keep)
    aims = targets[keep]
    weights = torch.ones(len(aims))
    weights[aims == recipe.tok.special("assistant_end")] = recipe.end_weight
    return (F.cross_entropy(logits, aims, reduction="none") * weights).sum() / weights.sum()


def train(args: argparse.Namespace) -> None:
    """All steps from the last one saved; figures and a checkpoint on the way and at the end."""
    resume = args.out / "train_state.pt"
    state: dict[str, Any] = {"step": 0, "seconds": 0}
    if resume.exists():
        state = torch.load(resume, weights_only=True)
    start, before = state["step"], state["seconds"]
    recipe = (answering if args.rows == "answers" else repeating)(args, start)
    if start:
        recipe.lm.load_state_dict(state["model"])
        for part, saved in zip(recipe.optimiser.parts, state["optimiser"], strict=True):
            part.load_state_dict(saved)
    print(f"{sum(p.numel() for p in recipe.lm.parameters()):,} parameters, step {start}")
    began = time.time()
    losses: list[float] = []
    for step in range(start, args.steps):
        loss = loss_of(recipe, *recipe.batch(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(recipe.lm.parameters(), 1.0)
        recipe.optimiser.step(schedule(step, args.steps))
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"loss is {losses[-1]} at step {step}")
        done, spent = step + 1, time.time() - began
        if done % 50 == 0:
            rate, mean = spent / (done - start), sum(losses[-50:]) / len(losses[-50:])
            left = rate * (args.steps - done) / 60
            print(f"step {done} loss {mean:.3f} {rate:.2f} s/step, {left:.0f} min left", flush=True)
        if done % args.every == 0 or done == args.steps:
            keep(args, recipe, done, before + round(spent))


def keep(args: argparse.Namespace, recipe: Recipe, step: int, seconds: int) -> None:
    """Judge and write a checkpoint, and what is needed to go on."""
    figures = recipe.judge(400 if step == args.steps else 12)
    print(f"step {step} {json.dumps(figures)}", flush=True)
    meta: dict[str, object] = {
        "val_bpb": None,  # upstream's field; this LM is judged by what it says
        "user_config": {
            "run": "demo",
            "num_iterations": args.steps,
            "matrix_lr": recipe.optimiser.rates[0],
            "garble": args.garble,
            "seed": args.seed,
        },
        **figures,
        "seconds": seconds,
    }
    save(args.out, recipe.lm, recipe.tok, step, meta)
    optimiser = [part.state_dict() for part in recipe.optimiser.parts]
    state = {"model": recipe.lm.state_dict(), "optimiser": optimiser}
    torch.save({**state, "step": step, "seconds": seconds}, args.out / "train_state.pt")


def save(out: Path, lm: NanoChat, tok: Tokenizer, step: int, meta: dict[str, object]) -> None:
    """Upstream's layout, matrices in bf16 and one-dimensional lambdas in fp32."""
    out.mkdir(parents=True, exist_ok=True)
    state = {k: t.bfloat16() if t.ndim > 1 else t.clone() for k, t in lm.state_dict().items()}
    torch.save(state, out / f"model_{step:06d}.pt")
    meta = {"step": step, "model_config": config_dict(lm.config), **meta}
    (out / f"meta_{step:06d}.json").write_text(json.dumps(meta, indent=2) + "\n")
    tok.save(out)


def main() -> None:
    """Parse and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", choices=("answers", "repeat"), default="repeat",
        help="what the LM is to do (default: %(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=3600, help="of an LM that repeats")
    parser.add_argument("--phases", default=PLAN, help="of an LM that answers: steps of each phase of "
        "its curriculum, in order (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--every", type=int, default=300, help="steps from one checkpoint to the next"
    )
    parser.add_argument("--vocab", type=int, help="ids of the tokenizer (default: by --rows)")
    parser.add_argument("--init", type=Path, help="start from this checkpoint folder's LM")
    parser.add_argument("--grow", type=int, default=0, help="with --init: layers more, on top")
    parser.add_argument("--point", type=int, default=0, help="with --init: fit the first head of this layer "
        "to turn from an option that is about to be said to its letter")  # fmt: skip
    parser.add_argument("--garble", type=float, default=0.0,
        help="share of chat rows in which the user is heard with faults")  # fmt: skip
    parser.add_argument("--lr", type=float, help="of the matrices (default: by --rows)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.plan = plan(args.phases) if args.rows == "answers" else []
    args.steps = len(args.plan) or args.steps
    torch.set_num_threads(1)
    train(args)


if __name__ == "__main__":
    main()
