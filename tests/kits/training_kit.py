"""Small parts the tests of projector, prompt, stream, trainer and evaluation share."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tiktoken
import torch

from omni.formats.shard_writer import ShardWriter, SplitSpec, write_index
from omni.formats.shards import Sample
from omni.formats.splits import SplitIndex, open_split
from omni.nanochat.build import random_init
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.model import NanoChat
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


WORDS = ["red", "blue", "green", "gold", "book", "cup", "door", "lamp"]
WIDTH = 16  # of a frame
CONFIG = {"encoder": "synthetic", "layers": "last", "dtype": "float16"}


def speech(n: int, seed: int = 0, first: int = 0, speaker: str = "ann") -> list[Sample]:
    """Utterances of one to three words whose frames tell the words: 8 noisy frames a word."""
    rng = np.random.default_rng(seed)
    sounds = np.random.default_rng(99).standard_normal((len(WORDS), WIDTH))
    samples = []
    for i in range(first, first + n):
        said = rng.integers(len(WORDS), size=rng.integers(1, 4))
        frames = np.repeat(sounds[said], 8, axis=0)
        frames = (frames + 0.1 * rng.standard_normal(frames.shape)).astype(np.float16)
        text = " ".join(WORDS[w] for w in said)
        meta = {
            "id": f"{speaker}-{i:04d}", "split": "", "speaker": speaker, "chapter": "1", "sex": "",
            "text": text, "text_norm": text, "n_samples": len(frames) * 320,
            "n_frames": len(frames), "n_chunks": 1, "sha256": "",
        }  # fmt: skip
        samples.append(Sample(meta["id"], meta, frames))
    return samples


def write_split(
    root: Path,
    name: str,
    samples: list[Sample],
    shard_size: int = 16,
    role: str = "train",
    config: dict[str, str] | None = None,
) -> SplitIndex:
    """A finished split folder of these samples."""
    spec = SplitSpec(root / name, name, role, config or CONFIG, shard_size)
    cuts = range(0, len(samples), shard_size)
    for shard, begin in enumerate(cuts):
        part = samples[begin : begin + shard_size]
        with ShardWriter(spec, shard) as writer:
            for sample in part:
                writer.add({**sample.meta, "split": name}, sample.features)
            writer.commit("", {}, {})
    write_index(spec, len(cuts))
    return open_split(spec.folder)


def save_lm(folder: Path, lm: NanoChat) -> Path:
    """An SFT checkpoint of the tiny LM in nanochat's own layout."""
    folder.mkdir(parents=True)
    torch.save(lm.state_dict(), folder / "model_000001.pt")
    meta = {"step": 1, "model_config": asdict(lm.config), "user_config": {}, "kind": "sft"}
    (folder / "meta_000001.json").write_text(json.dumps(meta))
    chat_tokenizer().save(folder)
    return folder
