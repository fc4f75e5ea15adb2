"""A small training step: trainee, batch and gradients, for one process or several ranks."""

import torch
from training_kit import chat_tokenizer, speech, tiny_lm

from omni.bridge.frames import pad_features
from omni.bridge.projector import build_projector
from omni.bridge.turns import choose_template
from train.step import Trainee, make_optimizer
from train.stream import START, Packed


def make_trainee(micro: int = 8, dtype: torch.dtype = torch.float32) -> Trainee:
    lm = tiny_lm().to(dtype)
    torch.manual_seed(0)
    projector = build_projector(
        d_in=16, n_embd=64, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32
    )  # fmt: skip
    torch.nn.init.normal_(projector.ve_head.weight, 0, 0.1)
    projector = projector.to(dtype)
    template = choose_template({"kind": "sft"})
    optimizer = make_optimizer(projector, 1e-3)
    return Trainee(lm, chat_tokenizer(), projector, template, optimizer, micro)


def pack(rank: int = 0, world: int = 1, n: int = 7) -> Packed:
    samples = speech(n)[rank::world]
    features, lengths = torch.empty(0, 1, 1), torch.empty(0, dtype=torch.long)
    if samples:
        features, lengths = pad_features([s.features for s in samples])
    texts = [s.meta["text_norm"] for s in samples]
    return Packed(features, lengths, texts, [s.key for s in samples], START, START, n)


def gradients(trainee: Trainee) -> torch.Tensor:
    return torch.cat(
        [p.grad.reshape(-1) for p in trainee.projector.parameters() if p.grad is not None]
    )
