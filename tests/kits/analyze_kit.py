"""A toy world for the report's tests: speech that is nearly text, heard by the demo LM.

Each token has a "sound" (a fixed vector held for a few frames, with a voice, a clock and noise), and
the "trained" projector is the least-squares map from sounds to the LM's own embedding and value
rows: no training, no encoder, and every number of the report has something to find.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omni import runs
from omni.bridge.frames import pad_features
from omni.bridge.projector import Projector, build_projector
from omni.bridge.turns import DEFAULT_PROMPT, Template
from omni.evaluation.evaluate import evaluate
from omni.formats.records import fingerprint
from omni.formats.shard_writer import ShardWriter, SplitSpec, write_index
from omni.formats.shards import Sample, escape_key
from omni.nanochat import NanoChat, Tokenizer, load_checkpoint
from train.options import TrainOptions

WORDS = [
    "set",
    "take",
    "put",
    "the",
    "red",
    "green",
    "blue",
    "silver",
    "book",
    "cup",
    "lamp",
    "by",
    "near",
    "under",
    "river",
    "table",
    "at",
    "on",
]
D_IN, STACK = 32, 4
TEMPLATE = Template("sft", DEFAULT_PROMPT)
CONFIG = {"encoder": "toy", "layers": "last", "dtype": "float16"}


@cache
def demo_lm() -> tuple[NanoChat, Tokenizer]:
    """The LM that comes with the project, and its tokenizer."""
    lm, tok, _ = load_checkpoint("demo")
    return lm, tok


def speech(n: int, seed: int, prefix: str, speakers: int = 3, text: str = "") -> list[Sample]:
    """`n` utterances of four to seven words, or all of them saying `text`."""
    _, tok = demo_lm()
    rng = np.random.default_rng(seed)
    sounds = np.random.default_rng(7).normal(size=(tok.vocab_size, D_IN))
    voices = np.random.default_rng(8).normal(size=(16, D_IN)) * 0.3
    clock = np.random.default_rng(9).normal(size=D_IN)
    samples = []
    for i in range(n):
        said = text or " ".join(rng.choice(WORDS, size=rng.integers(4, 8)))
        ids = np.array(tok.encode(said))
        frames = np.repeat(sounds[ids], STACK, 0) + voices[i % speakers]
        frames += clock * np.linspace(0, 1, len(frames))[:, None]
        frames += rng.normal(size=frames.shape) * 0.3
        key = f"{prefix}-{i:04d}"
        meta = {
            "id": key, "split": prefix, "speaker": f"voice{i % speakers}", "chapter": "1", "sex": "F",
            "text": said, "text_norm": said, "n_samples": 320 * len(frames),
            "n_frames": len(frames), "n_chunks": 1, "sha256": "0" * 64,
        }  # fmt: skip
        samples.append(Sample(escape_key(key), meta, frames.astype(np.float16)))
    return samples


def write_split(
    root: Path,
    split: str,
    samples: list[Sample],
    role: str = "eval",
    config: dict[str, Any] = CONFIG,
) -> Path:
    """A finished split of one shard."""
    spec = SplitSpec(root / split, split, role, config, 512)
    with ShardWriter(spec, 0) as writer:
        for sample in samples:
            writer.add(sample.meta, sample.features)
        writer.commit("", {}, {})
    write_index(spec, 1)
    return root / split


@torch.no_grad()
def teach(shuffled: bool = False) -> tuple[Projector, Projector]:
    """(untrained, trained) projectors; `shuffled` fits each utterance to another one's tokens."""
    lm, tok = demo_lm()
    torch.manual_seed(1)
    untrained = build_projector("linear", D_IN, lm.config.n_embd, lm.n_ve, lm.kv_dim, STACK)
    trained = build_projector(**untrained.config)
    trained.load_state_dict(untrained.state_dict())
    data = speech(300, 3, "train")
    ids = [torch.tensor(tok.encode(s.meta["text_norm"])) for s in data]
    heard, wanted = [], []
    for i, sample in enumerate(data):
        h = trained.body(pad_features([sample.features])[0].float())[0]  # (N, d_out)
        target = ids[(i + 1) % len(ids) if shuffled else i][: len(h)]
        heard.append(h[: len(target)])
        wanted.append(target)
    rows, values = lm.embed(torch.cat(wanted)[None])
    assert values is not None
    assert trained.ve_head is not None
    x = torch.cat(heard)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    ridge = x.T @ x + 1e-2 * torch.eye(x.shape[1])
    for head, target in ((trained.row_head, rows[0]), (trained.ve_head, values[0].flatten(1))):
        solved = torch.linalg.solve(ridge, x.T @ target.float())
        head.weight.copy_(solved[:-1].T)
        head.bias.copy_(solved[-1])
    return untrained.eval(), trained.eval()


def write_run(
    folder: Path, shards: Path, untrained: Projector, trained: Projector, shuffled: bool = False,
    steps: int = 300, config: dict[str, Any] = CONFIG,
) -> runs.Run:  # fmt: skip
    """A run folder as the trainer leaves it."""
    lm, tok = demo_lm()
    options = replace(
        TrainOptions(), shards=(str(shards),), steps=steps, shuffle_pairs=shuffled, lm="demo"
    )
    run = runs.create_run(
        folder,
        {
            "projector": trained.config,
            "template": {"kind": TEMPLATE.kind, "prompt": TEMPLATE.prompt},
            "lm": "demo",
            "select": "toy-heldout",
            "train": options.to_json(),
        },
        {
            "fingerprint": fingerprint(config), "fingerprint_config": config, "splits": [],
            "lm_hash": lm.fingerprint(), "lm_dtype": str(lm.dtype), "lm_kind": "sft", "seed": 0, "command": [], "versions": {},
        },
    )  # fmt: skip
    for which, projector in (("init", untrained), ("last", trained), ("best", trained)):
        runs.save_projector(folder, which, projector)
    figures = evaluate(lm, tok, trained, speech(6, 5, "log"), TEMPLATE)
    kept = {k: v for k, v in figures.items() if isinstance(v, float)}
    for step in (1, steps):
        runs.append_metrics(folder, {"step": step, "loss": 3.0 - step / 200, "token_accuracy": 0.5})
        runs.append_metrics(folder, {"step": step, "eval": {"toy-heldout": kept}})
    return run
