"""`omni-lm`: what a nanochat checkpoint is, and one with a run's adapters folded in."""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli import _types
from cli._common import EXIT_USAGE, make_parser, run

if TYPE_CHECKING:  # brings torch
    from omni.nanochat.inspection import AdapterFacts, Facts, Trained
    from omni.runs import Run

DESCRIPTION = """\
Look at a nanochat checkpoint of any era, or fold a run's adapters into one.

  omni-lm inspect demo              the LM that ships with this project
  omni-lm inspect sft:d20           under $NANOCHAT_BASE_DIR (default ~/.cache/nanochat)
  omni-lm inspect ./model_000650.pt --json
  omni-lm inspect runs/answers      the LM of a run, and the adapters that it learned
  omni-lm merge runs/answers OUT    a checkpoint in nanochat's layout for nanochat's own code; it has
                                    the adapters in every row, so text alone is answered otherwise too
"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-lm", DESCRIPTION, "inspect PATH | merge RUN OUT")
    parser.add_argument("verb", choices=["inspect", "merge"], help="what to do")
    parser.add_argument("path", metavar="PATH", type=_types.some,
        help="a folder, a model_*.pt, d12, sft:d20, a hub id, auto, demo, or a run")  # fmt: skip
    parser.add_argument("out", metavar="OUT", type=_types.some, nargs="?",
        help="merge: the checkpoint's folder, new or empty")  # fmt: skip
    g = parser.add_argument_group("model")
    g.add_argument("--softcap", type=_types.number(above=0),
        help="override where keys can't tell era C from C20")  # fmt: skip
    g.add_argument("--rope-bf16", choices=["yes", "no"],
        help="override of the rotary table's rounding")  # fmt: skip
    g = parser.add_argument_group("adapters of a run")
    g.add_argument("--checkpoint", choices=["best", "last"],
        help="which of them (default: the best, else the last)")  # fmt: skip
    g.add_argument("--lm", type=_types.some, help="where the run's LM lies now, if it has moved")
    g.add_argument("--lora-scale", type=_types.number(), default=1.0,
        help="merge: how strongly they act")  # fmt: skip
    g = parser.add_argument_group("memory estimate")
    g.add_argument("--batch", type=_types.whole(1), default=8, help="rows of a training batch")
    g.add_argument("--length", type=_types.whole(1), default=512, help="positions of a row")
    g = parser.add_argument_group("output")
    g.add_argument("--json", action="store_true", help="one JSON object instead of text")
    return parser


def command(args: argparse.Namespace) -> int:
    """Print what the checkpoint is, or write the merged one."""
    from omni.errors import OmniError, enough_memory

    if (args.out is None) != (args.verb == "inspect"):
        ask = "omni-lm inspect PATH, or omni-lm merge RUN OUT"
        said = "merge needs OUT" if args.out is None else "inspect takes no OUT"
        raise OmniError(said, mend=ask, exit_code=EXIT_USAGE)
    with enough_memory(args.path, "use a machine with more memory"), warnings.catch_warnings():
        warnings.simplefilter("always")
        return (_inspect if args.verb == "inspect" else _merge)(args)


def _inspect(args: argparse.Namespace) -> int:
    from omni.errors import OmniError
    from omni.nanochat.inspection import inspect_checkpoint
    from omni.nanochat.lora import find_adapters
    from omni.runs import load_run

    path, adapters, known = args.path, None, None
    # A checkpoint's folder may hold a config.json of its own, but no provenance.
    if (Path(path) / "provenance.json").is_file():
        run = load_run(path)
        path, known = args.lm or run.config["lm"], run.provenance["lm_hash"]
        asked = args.checkpoint is not None
        adapters = _adapters_of(run, args.checkpoint) if asked else find_adapters(run.path)
    facts = inspect_checkpoint(
        path, args.batch, args.length, args.softcap, _rounded(args), adapters
    )
    if known not in (None, facts["fingerprint"]):
        raise OmniError(
            f"the LM has hash {facts['fingerprint'][:12]}, the run was trained with {known[:12]}",
            path,
            "give the checkpoint of the run's training with --lm",
        )
    print(json.dumps(facts, indent=2) if args.json else "\n".join(lines(facts)))
    return 0


def _merge(args: argparse.Namespace) -> int:
    from omni.nanochat import load_checkpoint
    from omni.nanochat.lora import load_lora
    from omni.nanochat.merge import refuse_files, write_merged
    from omni.runs import load_run

    out = Path(args.out)
    refuse_files(out)  # before anything is loaded
    run = load_run(args.path)
    adapters = _adapters_of(run, args.checkpoint)
    lm, _, meta = load_checkpoint(args.lm or run.config["lm"], "cpu", args.softcap, _rounded(args))
    run.check_lm(lm, args.lm or "")
    lora = load_lora(adapters, lm, run.provenance["lm_hash"])
    lora.scale = args.lora_scale
    if args.softcap is not None:  # what keys can't tell must stay told
        meta["softcap"] = args.softcap
    if args.rope_bf16 is not None:
        meta["rope_bf16"] = _rounded(args)
    model = write_merged(lm, meta, lora, out)
    if args.json:
        print(json.dumps({"model": str(model), "adapters": str(adapters), "scale": lora.scale}))
    else:
        print(f"{model}: {adapters} (rank {lora.rank}) folded in at scale {lora.scale:g}")
    return 0


def _rounded(args: argparse.Namespace) -> bool | None:
    """Whether the rotary table is said to be rounded; None: not said."""
    return None if args.rope_bf16 is None else args.rope_bf16 == "yes"


def _adapters_of(run: "Run", which: str | None) -> Path:
    from omni.errors import OmniError
    from omni.nanochat.lora import find_adapters

    found = find_adapters(run.path, which)
    if found is None:
        name = f"lora-{which or 'best'}.safetensors"
        raise OmniError(
            f"the run has no adapters: no {name}", str(run.path), "train some with --lora 16"
        )
    return found


def lines(facts: "Facts") -> list[str]:
    """The facts of `inspect_checkpoint` as lines of text, a label in front of each."""
    f = facts
    step = "" if f["step"] is None else f", step {f['step']}"
    windows = " ".join("all" if w is None else str(w) for w in f["windows"])
    groups = ", ".join(f"{k} {n:,}" for k, n in f["parameter_groups"].items() if n)
    stored = ", ".join(f"{name} {n:,}" for name, n in sorted(f["stored"].items()))
    worn = [] if f["adapters"] is None else [f"adapters    {_adapters(f['adapters'])}"]
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
        *worn,
        f"memory      {_memory(f)}",
        f"fingerprint {f['fingerprint']}",
    ]


def _adapters(facts: "AdapterFacts") -> str:
    change = ", ".join(f"{name} {x:.2g}" for name, x in facts["change"].items())
    dropout = f", dropout {facts['dropout']:g}" if facts["dropout"] else ""
    return (
        f"{facts['path']}: rank {facts['rank']}, alpha {facts['alpha']:g}{dropout}, "
        f"{facts['parameters']:,} parameters; they change, relative to W: {change}"
    )


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
    with_them = "" if facts["adapters"] is None else " and these adapters"
    return (
        f"about {plain['total'] / 1e9:.1f} GB to train a projector{with_them} in bf16 with the "
        "default recipe, "
        f"{facts['memory_batch']} rows of {facts['memory_length']} positions at once "
        f"({plain['weights'] / 1e9:.1f} GB of it the LM), {kept['total'] / 1e9:.1f} GB with "
        "--checkpoint-activations; computed, not measured on a card"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
