"""Small parts the tests of projector, prompt, stream, trainer and evaluation share."""

import tiktoken
import torch

from omni.nanochat.build import random_init
from omni.nanochat.model import NanoChat, NanoChatConfig
from omni.nanochat.tokenizer import SPECIAL_NAMES, Tokenizer


def chat_tokenizer() -> Tokenizer:
    """256 bytes and nanochat's nine specials: vocabulary 265."""
    specials = {f"<|{name}|>": 256 + i for i, name in enumerate(SPECIAL_NAMES)}
    encoding = tiktoken.Encoding(
        name="chat-bytes",
        pat_str=r"[\s\S]",
        mergeable_ranks={bytes([value]): value for value in range(256)},
        special_tokens=specials,
    )
    return Tokenizer(encoding)


def tiny_lm(era: str = "E", n_layer: int = 2, seed: int = 0, sequence_len: int = 128) -> NanoChat:
    """A frozen random LM whose output projections are not zero, so that gradients pass."""
    config = NanoChatConfig(sequence_len, 265, n_layer, 2, 1, 64, "SL")
    lm = random_init(config, era, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for key, p in lm.named_parameters():
        if key.endswith("c_proj.weight"):
            torch.nn.init.normal_(p, 0.0, 0.05, generator=generator)
        elif key == "lm_head.weight":
            torch.nn.init.normal_(p, 0.0, 0.1, generator=generator)
        elif key == "smear_lambda":
            torch.nn.init.constant_(p, 0.5)
    return lm.freeze()
