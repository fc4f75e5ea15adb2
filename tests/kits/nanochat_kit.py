"""Small nanochats of every era, their checkpoints and a tokenizer."""

import json
from pathlib import Path
from typing import Any

import tiktoken
import torch
from hypothesis import strategies as st
from nanochat_reference import ruled_model, ruled_state

from omni.nanochat import NanoChat, NanoChatConfig
from omni.nanochat.config import config_dict
from omni.nanochat.lora import TARGETS, Lora
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer


def small_encoding() -> tiktoken.Encoding:
    """Bytes, one merge, and nanochat's nine specials at the end."""
    ranks = {bytes([value]): value for value in range(256)} | {b"he": 256}
    specials = {f"<|{name}|>": 257 + i for i, name in enumerate(SPECIAL_NAMES)}
    return tiktoken.Encoding(
        name="rustbpe", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens=specials
    )


CONFIG = NanoChatConfig(64, 266, 3, 4, 2, 64, "SL")


def write(
    folder: Path, step: int = 7, era: str = "E", tokenizer: bool = True, **meta: Any
) -> dict[str, torch.Tensor]:
    """A checkpoint as nanochat saves it; returns its state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    state = ruled_state(era, CONFIG)
    torch.save(state, folder / f"model_{step:06d}.pt")
    content = {"step": step, "model_config": config_dict(CONFIG), **meta}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(content))
    if tokenizer:
        Tokenizer(small_encoding()).save(folder)
    return state


ERA_NAMES = ["A", "B", "C", "C20", "D", "E"]


@st.composite
def models(draw: st.DrawFn) -> NanoChat:
    """A small frozen model of any era and shape, with weights that are not at their init."""
    kv = draw(st.sampled_from([1, 2, 3]))
    heads = kv * draw(st.sampled_from([1, 2]))
    return ruled_model(
        draw(st.sampled_from(ERA_NAMES)),
        sequence_len=draw(st.sampled_from([8, 20, 48])),
        vocab_size=draw(st.integers(20, 90)),
        n_layer=draw(st.integers(1, 5)),
        n_head=heads,
        n_kv_head=kv,
        n_embd=heads * draw(st.sampled_from([32, 48])),
        window_pattern=draw(st.sampled_from(["L", "SL", "SSSL", "S", None])),
    )


def inputs(lm: NanoChat, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows no token has, for a batch of `lengths`, right-padded."""
    rng = torch.Generator().manual_seed(len(lengths))
    shape = (len(lengths), max(lengths))
    rows = torch.randn(*shape, lm.config.n_embd, generator=rng)
    ve = torch.randn(*shape, lm.n_ve, lm.kv_dim, generator=rng) if lm.n_ve else None
    return rows, ve


def part(t: torch.Tensor | None, rows: Any, cols: Any) -> torch.Tensor | None:
    return None if t is None else t[rows, cols]


def adapters(lm: NanoChat, rank: int = 3, alpha: float = 6.0, seed: int = 1, **more: Any) -> Lora:
    """Adapters of an LM that say something: B is not zero, as if they had been trained."""
    lora = Lora(lm.config, rank, alpha, seed=seed, **more)
    rng = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for key, p in lora.named_parameters():
            if key.endswith(".B"):
                p.copy_(0.3 * torch.randn(p.shape, generator=rng) / rank**0.5)
    return lora


def some_targets() -> st.SearchStrategy[list[str]]:
    """Any matrices to adapt, at least one, in any order."""
    return st.lists(st.sampled_from(TARGETS), min_size=1, max_size=len(TARGETS), unique=True)
