"""Memory to train a projector on a frozen nanochat: the tables of docs/memory.md, and their check.

.venv/bin/python -m bench.memory             the tables, computed (seconds, any machine)
.venv/bin/python -m bench.memory --measure   a real step beside the computed: on a card the peak that
                                             it reports (d12, d20, d26), on a CPU what autograd keeps
                                             and the allocator's peak (d2, fp32)
"""

import argparse
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from omni.bridge.projector import build_projector
from omni.bridge.turns import choose_template
from omni.nanochat import random_init
from omni.nanochat.build import cast_matrices
from omni.nanochat.checkpoint import load_checkpoint
from omni.nanochat.lora import Lora
from omni.nanochat.memory import (
    Memory,
    Recipe,
    Rows,
    depth_config,
    largest_batch,
    parameter_groups,
    training_memory,
)
from omni.nanochat.tokenizer import Tokenizer
from train.options import TrainOptions
from train.step import Trainee, backward, make_optimizer, train_step
from train.stream import START, Packed

DEPTHS = (12, 20, 26)
CARDS = (24, 32, 80)
# Of a LibriSpeech utterance: soft tokens of 16 s (most are shorter, and a batch is padded to its
# longest), 4 tokens of text a second and the end, 6 of the template around them.
LONG = Rows(TrainOptions.batch_size, 201 + 65 + 6, 201, 65)
FLAGS = {
    "none": Recipe(),
    "--checkpoint-activations": Recipe(checkpointing=True),
    "--ctc-weight 0": Recipe(ctc=False),
    "both": Recipe(ctc=False, checkpointing=True),
    "--lora 16": Recipe(lora_rank=16, lora_dropout=True),
    "--lora 16 --checkpoint-activations": Recipe(
        lora_rank=16, lora_dropout=True, checkpointing=True
    ),
}


def main() -> None:
    """Print the tables, and the check if it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="run a step too, and compare")
    args = parser.parse_args()
    print("\n".join([*parts_table(), "", *cards_table()]))
    if args.measure:
        print("\n".join(["", *(on_a_card() if torch.cuda.is_available() else on_a_cpu())]))


def parts_table() -> list[str]:
    """Markdown: where the memory of the recipe goes, for each depth and choice of flags."""
    lines = [
        f"| {LONG.batch} rows | flags | LM | trained | rows | projector | layers | losses | passing | peak, GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for depth in DEPTHS:
        config = depth_config(depth)
        size = sum(parameter_groups(config).values()) / 1e6
        for flags, recipe in FLAGS.items():
            m = training_memory(config, LONG, recipe)
            parts = (m.weights, m.trained, m.beside, m.projector, m.layers, m.heads, m.passing)
            cells = " | ".join(f"{part / 1e9:.2f}" for part in (*parts, m.total))
            lines.append(f"| d{depth} ({size:,.0f} M) | {flags} | {cells} |")
    return lines


def cards_table() -> list[str]:
    """Markdown: the largest micro-batch for each card, in rows of 16 s."""
    cards = " | ".join(f"{card} GB" for card in CARDS)
    lines = [f"| rows of 16 s | flags | {cards} |", "|---|---|" + "---|" * len(CARDS)]
    for depth in DEPTHS:
        for flags, recipe in FLAGS.items():
            fits = (largest_batch(card, depth_config(depth), LONG, recipe) for card in CARDS)
            lines.append(f"| d{depth} | {flags} | {' | '.join(map(str, fits))} |")
    return lines


@dataclass(frozen=True)
class Case:
    """A trainee, a batch for it, and what the model says of its step."""

    trainee: Trainee
    packed: Packed
    computed: Memory


def make_case(
    depth_or_config: Any,
    recipe: Recipe,
    seconds: float = 16.0,
    batch: int = 8,
    era: str = "E",
    device: str = "cpu",
    text: str = "four score and seven years ago our fathers brought forth",
    tok: Tokenizer | None = None,
) -> Case:
    """The product's own step on a random LM.

    Args:
        depth_or_config: a depth of nanochat, or a NanoChatConfig.
        recipe: its `element` is the LM's dtype: 4 fp32, 2 bf16.
        text: what each utterance says.
        tok: the demo's if None; the LM's vocabulary is at least as large.
    """
    tok = tok or load_checkpoint("demo")[1]
    config = depth_config(depth_or_config) if isinstance(depth_or_config, int) else depth_or_config
    config = replace(config, vocab_size=max(config.vocab_size, tok.vocab_size))
    dtype = torch.bfloat16 if recipe.element == 2 else torch.float32
    lm = cast_matrices(random_init(config, era), dtype).freeze().to(device)
    lm.activation_checkpointing = recipe.checkpointing
    p = recipe.projector
    projector = build_projector(
        p.name, p.d_in, config.n_embd, lm.n_ve, lm.kv_dim, p.stack, p.hidden, p.audio_ve
    ).to(device)
    template = choose_template({"kind": "sft"})
    if recipe.lora_rank:
        dropout = 0.05 if recipe.lora_dropout else 0.0
        lm.wear(Lora(config, recipe.lora_rank, 32.0, dropout, recipe.lora_targets))
    optimizer = make_optimizer(projector, 1e-3, lm.lora, 1e-3)
    trainee = Trainee(lm, tok, projector, template, optimizer, batch, ctc=float(recipe.ctc))
    frames = int(50 * seconds)
    features = torch.randn(batch, frames, p.d_in, generator=torch.Generator().manual_seed(0))
    lengths, keys = torch.full((batch,), frames), [f"utterance-{i}" for i in range(batch)]
    packed = Packed(features.half(), lengths, [text] * batch, keys, START, START, batch)
    soft, ids = projector.output_length(frames), len(tok.encode(text))
    rows = Rows(batch, soft + ids + template.around(tok), soft, ids + 1)
    return Case(trainee, packed, training_memory(config, rows, recipe, era))


def kept_by_autograd(case: Case) -> int:
    """Bytes of distinct storages that a real step's graph holds before its backward pass; weights
    and the table of CTC, which the model counts elsewhere, left out."""
    trainee = case.trainee
    modules = [m for m in (trainee.lm, trainee.projector, trainee.lm.lora) if m is not None]
    own = {p.untyped_storage()._cdata for m in modules for p in m.parameters()}
    if trainee.ctc:
        own.add(trainee.directions().untyped_storage()._cdata)
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        backward(trainee, case.packed)
    return sum(t.untyped_storage().nbytes() for key, t in held.items() if key not in own)


def peak_on_a_cpu(step: Callable[[], object]) -> int:
    """Bytes that torch's CPU allocator holds at the worst moment of `step`, above what it held
    before; kernels' own temporaries are in it."""
    gc.collect()  # what others have left would be given back in mid-step, and count against the peak
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        step()
    results = profile.profiler.kineto_results  # type: ignore[union-attr]
    events = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    now = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        now += size
        peak = max(peak, now)
    return peak


def on_a_cpu() -> list[str]:
    """Markdown: what a step of a d2 keeps and takes in fp32, beside the computed."""
    lines = ["| on this CPU | kept, MB | computed | peak above what stood, MB | computed |"]
    lines.append("|---|---|---|---|---|")
    for flags in FLAGS:
        case = make_case(2, replace(FLAGS[flags], element=4, card=False))
        m, kept = case.computed, kept_by_autograd(case)
        train_step(case.trainee, case.packed, 1e-4)
        got = peak_on_a_cpu(lambda case=case: train_step(case.trainee, case.packed, 1e-4))
        numbers = (kept, m.kept, got, m.beside + m.kept + m.passing)
        lines.append(f"| d2, {flags} | {' | '.join(f'{x / 1e6:.1f}' for x in numbers)} |")
    return lines


def on_a_card() -> list[str]:
    """Markdown: the peak of a real step in bf16 as the device reports it, by part, beside the
    computed; a model that does not fit is a row that says so."""
    lines = ["| on this card | LM | computed | trained | computed | peak, GB | computed |"]
    lines.append("|---|---|---|---|---|---|---|")
    for depth in DEPTHS:
        for flags in FLAGS:
            torch.cuda.empty_cache()
            try:
                cells = _of_a_card(depth, FLAGS[flags])
            except torch.OutOfMemoryError:
                cells = ["out of memory"] + [""] * 5
            lines.append(f"| d{depth}, {flags} | {' | '.join(cells)} |")
    return lines


def _of_a_card(depth: int, recipe: Recipe) -> list[str]:
    """LM, trained and peak, each measured and computed, in GB."""
    before = torch.cuda.memory_allocated()
    case = make_case(depth, recipe, batch=LONG.batch, device="cuda")
    made = torch.cuda.memory_allocated() - before
    train_step(case.trainee, case.packed, 1e-4)
    torch.cuda.reset_peak_memory_stats()
    case.trainee.optimizer.zero_grad(set_to_none=True)
    stood = torch.cuda.memory_allocated() - before
    train_step(case.trainee, case.packed, 1e-4)
    peak = torch.cuda.max_memory_allocated() - before
    learns = [p for g in case.trainee.optimizer.param_groups for p in g["params"]]
    size = 4 * sum(p.numel() for p in learns)
    m = case.computed
    trained = stood - made + 2 * size  # moments and CTC's table stand; weights, and gradients later
    pairs = ((made - size, m.weights), (trained, m.trained), (peak, m.total))
    return [f"{x / 1e9:.2f}" for pair in pairs for x in pair]


if __name__ == "__main__":
    main()
