"""Speed of the frozen LM on this machine: decoding and prefill, each beside its alternative.

    .venv/bin/python bench/nanochat.py [--threads 2] [--repeats 5]

Decoding: tokens a second with the KV cache, against the full pass over the row for every token.
Prefill: tokens a second of a d12 of era A, against transformers' NanoChat with the same weights,
the two taken in turns so that both see the same load. Prints one line a figure.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from omni.nanochat import NanoChat, load_checkpoint, random_init
from omni.nanochat.generate import generate
from omni.nanochat.memory import depth_config

PROMPT, NEW = 100, 64  # rows before decoding (8 s of audio), tokens decoded
PREFILL = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {args.threads} threads, median of {args.repeats}")
    d12 = depth_config(12)
    models = {"demo LM": load_checkpoint("demo")[0], "random d12": awake(random_init(d12, "E"))}
    for name, lm in models.items():
        cached, plain = in_turns([partial(decode, lm), partial(decode_plain, lm)], args.repeats)
        print(
            f"decode {name}: {NEW / cached:,.1f} tokens/s with the cache, {NEW / plain:,.1f} with "
            f"the full pass for each ({plain / cached:.1f}x), {PROMPT} rows before"
        )
    ours = awake(random_init(replace(d12, window_pattern=None), "A"))
    theirs = in_transformers(ours)
    ids = torch.randint(ours.config.vocab_size, (1, PREFILL))
    with torch.inference_mode():
        apart = (ours(ids) - theirs(ids).logits).abs().max().item()
        a, b = in_turns([lambda: ours(ids), lambda: theirs(ids).logits], args.repeats)
    print(
        f"prefill d12 era A, {PREFILL} ids: {PREFILL / a:,.1f} tokens/s, transformers "
        f"{PREFILL / b:,.1f} ({b / a:.2f}x); logits apart by at most {apart:.1e}"
    )


def in_turns(jobs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each job, run in turns after one warm-up."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(repeats + 1):
        for job, taken in zip(jobs, seconds, strict=True):
            began = time.perf_counter()
            job()
            if turn:
                taken.append(time.perf_counter() - began)
    return [median(taken) for taken in seconds]


def decode(lm: NanoChat) -> list[list[int]]:
    """Decode after a prefill of soft rows, with the cache."""
    rows = torch.ones(1, PROMPT, lm.config.n_embd)
    return generate(lm, rows, None, torch.tensor([PROMPT]), set(), NEW)


@torch.inference_mode()
def decode_plain(lm: NanoChat) -> list[int]:
    """The same tokens from a full pass over the row for each."""
    rows = torch.ones(1, PROMPT, lm.config.n_embd)
    ve = torch.zeros(1, PROMPT, lm.n_ve, lm.kv_dim)
    out = []
    last = torch.zeros(1, PROMPT, dtype=torch.bool)
    last[:, -1] = True
    for _ in range(NEW):
        token = lm.forward_embeds(rows, ve, positions=last).argmax(-1)[:, None]
        out.append(int(token))
        more_rows, more_ve = lm.embed(token)
        rows = torch.cat([rows, more_rows], 1)
        last = torch.cat([torch.zeros_like(token, dtype=torch.bool), last], 1)
        if more_ve is not None:
            ve = torch.cat([ve, more_ve], 1)
    return out


def awake(lm: NanoChat) -> NanoChat:
    """Random output projections instead of zeros, which would let every layer add nothing."""
    for key, p in lm.named_parameters():
        if key.endswith("c_proj.weight"):
            torch.nn.init.normal_(p, 0.0, 0.02)
    return lm.freeze()


def in_transformers(lm: NanoChat) -> torch.nn.Module:
    """transformers' NanoChat with the weights of an era-A model."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    c = lm.config
    config = NanoChatConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.n_embd,
        intermediate_size=4 * c.n_embd,
        num_hidden_layers=c.n_layer,
        num_attention_heads=c.n_head,
        num_key_value_heads=c.n_kv_head,
        max_position_embeddings=c.sequence_len,
        rms_norm_eps=torch.finfo(torch.float32).eps,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    names = {
        "transformer.wte": "model.embed_tokens",
        "transformer.h.": "model.layers.",
        "attn.c_q": "self_attn.q_proj",
        "attn.c_k": "self_attn.k_proj",
        "attn.c_v": "self_attn.v_proj",
        "attn.c_proj": "self_attn.o_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    state = {}
    for key, tensor in lm.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = tensor
    model = NanoChatForCausalLM(config).eval()
    model.load_state_dict(state, strict=True)
    return model


if __name__ == "__main__":
    main()
