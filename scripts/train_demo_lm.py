"""Train the demo LM: a small, real nanochat of era E that repeats what it is told and answers about it.

    python scripts/train_demo_lm.py --rows answers --out work/answers --steps 1200
    python scripts/train_demo_lm.py --rows answers --phase hear --garble 0.5 --seed 1 --lr 0.015 \\
        --init work/answers --out work/hear --steps 2000

Its rows: scripts/demo_questions.py (sentences of the demo corpus's grammar but the held-out ones, its
words and others in random order, asked about in several turns) and scripts/demo_rows.py. How it learns
to answer by a letter: scripts/demo_hints.py. Other text: the King James Bible and five Austen novels
(scripts/public_text.py).

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
from demo_hints import Reader, hint_loss
from demo_measure import exact, measure
from demo_optimisers import Optimiser, adam, muon
from demo_questions import PHASES, WORDS, AnswerRows, grammar_sentences, held_out_sentences
from demo_rows import RepeatRows, Row, pad
from public_text import bible_verses, normalise, novel_paragraphs

from omni.bridge.prompt import IGNORED
from omni.formats.tasks import LETTERS
from omni.nanochat import NanoChat, NanoChatConfig, load_checkpoint, random_init
from omni.nanochat.config import config_dict
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer
from tasks.wordings import CONTENT, NOTHING, REPEAT

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"
REPEATS = NanoChatConfig(512, 2048, 4, 2, 2, 128, "SSSL")
ANSWERS = NanoChatConfig(512, 1024, 6, 4, 4, 128, "L")
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
    """What the tokenizer of an LM that answers is made from: wordings, the grammar's words and
    lists of options, so often that each word of them and each "=A" is one id, and some of the documents."""
    kinds = [*CONTENT.values(), *NOTHING.values(), *REPEAT.values()]
    asked = [t.replace('"{word}"', "") for kind in kinds for t in kind.train]
    asked += [f" {t[0].upper()}{t[1:]}" for t in asked]
    words = [f"{w}\n {w}" for w in WORDS]
    options = [f"- {w}={letter}\n" for w in WORDS for letter in LETTERS]
    return (asked + words + options) * 400 + [normalise(d) for d in documents[::8]]


class Recipe(NamedTuple):
    """How an LM is made. batch: the rows of a step; hints: of the way to an answer, or None; judge: figures
    on what it never trained on, from this many rows or questions of each kind."""

    lm: NanoChat
    tok: Tokenizer
    optimiser: Optimiser
    batch: Callable[[int], list[Row]]
    hints: Reader | None
    judge: Callable[[int], dict[str, object]]
    end_weight: float  # of an answer's end, which is soon learned, against its words


def begin(
    args: argparse.Namespace, config: NanoChatConfig, texts: Callable[[], list[str]]
) -> tuple[NanoChat, Tokenizer]:
    """The LM to go on from, or a fresh one with a tokenizer made from `texts`."""
    if args.init:
        lm, tok, _ = load_checkpoint(args.init, dtype=torch.float32)
        lm.train().requires_grad_(True)
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
    return Recipe(lm, tok, optimiser, rows.batch, None, judge, 1.0)


def answering(args: argparse.Namespace, start: int) -> Recipe:
    """An LM that answers questions about a text it reads, and repeats it."""
    documents, held_out = public_documents()
    train = grammar_sentences(N_TRAIN, 1, held_out_sentences(MANIFESTS))
    unseen = grammar_sentences(N_JUDGE, 2, without={*train})
    lm, tok = begin(args, ANSWERS, lambda: question_texts(documents))
    rows = AnswerRows(tok, train, documents, args.seed + 1000 * start, args.garble)

    def judge(n: int) -> dict[str, object]:
        found: dict[str, object] = {
            "repeat_errors": repeat_errors(lm, RepeatRows(tok, held_out, args.seed + 1), n)
        }
        for role, wordings in (("train", "wordings of training"), ("eval", "held-out wordings")):
            found[wordings] = measure(lm, tok, unseen, role, n // 4 * 4)._asdict()
        return found

    optimiser = muon(lm, args.lr or 0.02)
    batch = lambda _: rows.batch(PHASES[args.phase])  # noqa: E731
    return Recipe(lm, tok, optimiser, batch, Reader(tok), judge, 0.2)


def schedule(step: int, steps: int) -> float:
    """Warm up over 100 steps, stay, then fall linearly to zero over the last 45 %."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.45 * steps))


def repeat_errors(lm: NanoChat, rows: RepeatRows, n: int) -> float:
    """Share of unseen chat rows that greedy decoding would not repeat to the letter."""
    return sum(not exact(lm, [rows.repeat(24)])[0] for _ in range(n)) / n


def loss_of(recipe: Recipe, rows: list[Row]) -> tuple[Tensor, float]:
    """What is made small, and of it the mean cross-entropy of what is learned, ends of answers at their
    weight."""
    lm, (ids, targets) = recipe.lm, pad(rows)
    keep = targets != IGNORED
    states = lm.hidden_states(*lm.embed(ids))
    logits, aims = lm.read_out(states[-1][keep]), targets[keep]
    weights = torch.ones(len(aims))
    weights[aims == recipe.tok.special("assistant_end")] = recipe.end_weight
    loss = (F.cross_entropy(logits, aims, reduction="none") * weights).sum() / weights.sum()
    if recipe.hints is None:
        return loss, loss.item()
    return loss + hint_loss(lm, states, [recipe.hints.of(row) for row in rows]), loss.item()


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
        loss, cross_entropy = loss_of(recipe, recipe.batch(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(recipe.lm.parameters(), 1.0)
        recipe.optimiser.step(schedule(step, args.steps))
        losses.append(cross_entropy)
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
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--phase", choices=tuple(PHASES), default="answer",
        help="of an LM that answers (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--every", type=int, default=300, help="steps from one checkpoint to the next"
    )
    parser.add_argument("--vocab", type=int, help="ids of the tokenizer (default: by --rows)")
    parser.add_argument("--init", type=Path, help="start from this checkpoint folder's LM")
    parser.add_argument("--garble", type=float, default=0.0,
        help="share of chat rows in which the user is heard with faults")  # fmt: skip
    parser.add_argument("--lr", type=float, help="of the matrices (default: by --rows)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args)


if __name__ == "__main__":
    main()
