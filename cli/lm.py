"""`omni-lm inspect`: what a nanochat checkpoint is, and what training on it takes."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli import _types
from cli._common import make_parser, run

if TYPE_CHECKING:  # brings torch
    from omni.nanochat.inspection import Facts, Trained

DESCRIPTION = """\
Look at a nanochat checkpoint of any era.

  omni-lm inspect demo              the LM that ships with this project
  omni-lm inspect sft:d20           under $NANOCHAT_BASE_DIR (default ~/.cache/nanochat)
  omni-lm inspect ./model_000650.pt --json
"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-lm", DESCRIPTION, "inspect PATH")
    parser.add_argument("verb", choices=["inspect"], help="what to do")
    parser.add_argument("path", metavar="PATH", type=_types.some,
        help="a folder, a model_*.pt, d12, sft:d20, a hub id, auto or demo")  # fmt: skip
    g = parser.add_argument_group("model")
    g.add_argument("--softcap", type=_types.number(above=0),
        help="override where keys can't tell era C from C20")  # fmt: skip
    g.add_argument("--rope-bf16", choices=["yes", "no"],
        help="override of the rotary table's rounding")  # fmt: skip
    g = parser.add_argument_group("memory estimate")
    g.add_argument("--batch", type=_types.whole(1), default=8, help="rows of a training batch")
    g.add_argument("--length", type=_types.whole(1), default=512, help="positions of a row")
    g = parser.add_argument_group("output")
    g.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser


def command(args: argparse.Namespace) -> int:
    """Print what the checkpoint is."""
    from omni.errors import enough_memory
    from omni.nanochat.inspection import inspect_checkpoint

    rounded = None if args.rope_bf16 is None else args.rope_bf16 == "yes"
    full = enough_memory(args.path, "look at it on a machine with more memory")
    with full, warnings.catch_warnings():
        warnings.simplefilter("always")
        facts = inspect_checkpoint(args.path, args.batch, args.length, args.softcap, rounded)
    print(json.dumps(facts, indent=2) if args.json else "\n".join(lines(facts)))
    return 0


def lines(facts: "Facts") -> list[str]:
    """The facts of `inspect_checkpoint` as lines of text, a label in front of each."""
    f = facts
    step = "" if f["step"] is None else f", step {f['step']}"
    windows = " ".join("all" if w is None else str(w) for w in f["windows"])
    groups = ", ".join(f"{k} {n:,}" for k, n in f["parameter_groups"].items() if n)
    stored = ", ".join(f"{name} {n:,}" for name, n in sorted(f["stored"].items()))
    return [
        f"checkpoint  {f['path']} ({f['kind']}{step})",
        f"era         {f['era']}: {f['era_told_by']}; softcap {f['softcap']:g}, RoPE base "
        f"{f['rope_base']:g}{' rounded to bf16' if f['rope_bf16'] else ''}",
        f"depth       {f['n_layer']} layers, width {f['n_embd']}, {f['n_head']} heads of "
        f"{f['head_dim']}, {f['n_kv_head']} kv heads",
        f"positions   trained on {f['sequence_len']:,}, at most {f['longest_row']:,} in a row",
        f"windows     {f['window_pattern'] or 'no pattern'}: {windows}",
        f"parameters  {f['parameters']:,}: {groups}",
        f"values      embeddings in layers {' '.join(map(str, f['ve_layers'])) or 'none'}",
        f"stored as   {stored}",
        f"vocabulary  {f['vocab_size']:,} tokens in tables of {f['vocab_rows']:,} rows",
        f"specials    {_specials(f['specials'])}",
        f"memory      {_memory(f)}",
        f"fingerprint {f['fingerprint']}",
    ]


def _specials(specials: "dict[str, Trained]") -> str:
    read = [name for name, seen in specials.items() if seen["input"]]
    written = [name for name, seen in specials.items() if seen["output"]]
    unclear = any(seen["output"] is None for seen in specials.values())
    neither = [name for name in specials if name not in read and name not in written]
    said = "can't be told" if unclear else " ".join(written) or "none"
    return (
        f"trained as input: {' '.join(read) or 'none'}; as output: {said}; "
        f"as neither: {' '.join(neither) or 'none'}"
    )


def _memory(facts: "Facts") -> str:
    plain, kept = facts["memory"]["plain"], facts["memory"]["checkpointing"]
    return (
        f"about {plain['total'] / 1e9:.1f} GB to train a projector in bf16 with the default recipe, "
        f"{facts['memory_batch']} rows of {facts['memory_length']} positions at once "
        f"({plain['weights'] / 1e9:.1f} GB of it the LM), {kept['total'] / 1e9:.1f} GB with "
        "--checkpoint-activations; computed, not measured on a card"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
