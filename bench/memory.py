"""Memory to train a projector on a frozen nanochat: the table of docs/memory.md, and its check.

.venv/bin/python bench/memory.py             the table, computed (seconds, any machine)
.venv/bin/python bench/memory.py --measure   beside it the peak that a CUDA device reports
"""

import argparse

import torch

from omni.bridge.projector import build_projector
from omni.nanochat import NanoChat, random_init
from omni.nanochat.build import cast_matrices
from omni.nanochat.memory import depth_config, largest_batch, parameter_groups, training_memory

DEPTHS = (4, 12, 20, 26)
CARDS = (8, 12, 16, 24, 40, 80)
BATCH, LENGTH = 8, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="run it too, on a CUDA device")
    measure = parser.parse_args().measure
    print(
        "| model | parameters | checkpointing | weights | activations | logits | projector ", end=""
    )
    print(f"| peak, GB |{' measured |' if measure else ''} largest batch on 8/12/16/24/40/80 GB |")
    print("|---|---|---|---|---|---|---|---|---|" + "---|" * measure)
    for depth in DEPTHS:
        config = depth_config(depth)
        size = sum(parameter_groups(config).values())
        trained = projector_parameters(depth)
        for flag in (False, True):
            m = training_memory(
                config, "E", BATCH, LENGTH, checkpointing=flag, trained_parameters=trained
            )
            batches = "/".join(str(largest_batch(card, config, flag, trained)) for card in CARDS)
            parts = (m.weights, m.inputs + m.saved + m.passing, m.logits, m.trained, m.total)
            cells = " | ".join(f"{part / 1e9:.2f}" for part in parts)
            peak = f" {measured(depth, flag) / 1e9:.2f} |" if measure else ""
            print(
                f"| d{depth} | {size / 1e6:,.0f} M | {'yes' if flag else 'no'} | {cells} |{peak} "
                f"{batches} |"
            )


def projector_parameters(depth: int) -> int:
    """Of the default projector on whisper-base."""
    config = depth_config(depth)
    with torch.device("meta"):
        projector = build_projector(
            n_embd=config.n_embd, n_ve=len(config.ve_layers), kv_dim=config.kv_dim
        )
    return sum(p.numel() for p in projector.parameters())


def measured(depth: int, checkpointing: bool) -> int:
    """Peak bytes that CUDA's allocator reports for one forward and backward pass."""
    torch.cuda.empty_cache()
    lm: NanoChat = cast_matrices(random_init(depth_config(depth)), torch.bfloat16).freeze()
    lm = lm.to("cuda")
    lm.activation_checkpointing = checkpointing
    c = lm.config
    rows = torch.randn(BATCH, LENGTH, c.n_embd, device="cuda", requires_grad=True)
    ve = torch.zeros(BATCH, LENGTH, lm.n_ve, lm.kv_dim, device="cuda", requires_grad=True)
    asked = torch.zeros(BATCH, LENGTH, dtype=torch.bool, device="cuda")
    asked[:, -LENGTH // 4 :] = True
    targets = torch.randint(c.vocab_size, (int(asked.sum()),), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    logits = lm.forward_embeds(rows, ve, positions=asked)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    trained = 16 * projector_parameters(depth)
    return torch.cuda.max_memory_allocated() + trained


if __name__ == "__main__":
    main()
