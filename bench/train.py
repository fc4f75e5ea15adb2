"""What the trainer's design earns, measured: `python -m bench.train [--shards DIR] [--lm demo]`.

Without --shards it makes its own, of random frames as long as the demo's: no figure here depends on
what is said. Must not need a network: without Whisper's weights that row is left out, and said.

With --starve another question alone: how fast does the stream deliver batches, beside what a card would
take (starve.py)? Else three. What does streaming cost against the same batches fed from memory? How much slower
would it be to run Whisper in every step, as trainers without an extraction stage do? What do
supervised positions save over applying lm_head everywhere? Prints one JSON object.
"""

import argparse
import hashlib
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bench.starve import starve
from omni.bridge.losses import token_losses
from omni.bridge.projector import build_projector
from omni.bridge.prompt import Batch
from omni.bridge.turns import choose_template
from omni.errors import OmniError
from omni.formats.shard_writer import ShardWriter, SplitSpec, write_index
from omni.nanochat import NanoChat, NanoChatConfig, Tokenizer, load_checkpoint, random_init
from omni.whisper.encoder import load_encoder
from train.data import gather
from train.passes import BatchRule
from train.step import Trainee, make_optimizer, train_step
from train.stream import Packed, StreamSpec, batches


def main() -> None:
    """Run the three measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shards", help="folder of extracted splits; made up if not given")
    parser.add_argument("--lm", default="demo")
    parser.add_argument("--steps", type=int, default=20, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--clips", type=int, default=4, help="30 s windows to encode")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--starve", action="store_true", help="the stream alone, without an LM")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="with --starve")
    args = parser.parse_args()
    if args.starve:
        starve_alone(args.shards, args.steps, args.workers)
        return
    lm, tok, meta = load_checkpoint(args.lm, args.device)
    result: dict[str, Any] = {"device": args.device, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards or str(make_shards(Path(folder)))
        result["shards"] = args.shards or "made up"
        data = gather([shards], eval_limit=1)
        spec = StreamSpec(data.shards, 0, BatchRule(args.batch_size))
        trainee = make_trainee(lm, tok, meta, data.eval_sets[data.select][0].features)
        result |= stream_against_memory(trainee, spec, args.steps)
    try:
        result |= against_whisper_in_the_loop(result["step_memory_s"], args.batch_size, args.clips)
    except OmniError as error:
        print(f"no Whisper in the loop: {error}", file=sys.stderr)
    result |= supervised_positions()
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}))


def starve_alone(shards: str | None, steps: int, workers: Sequence[int]) -> None:
    """Print one JSON object: what the stream delivers, and what a card would take."""
    with tempfile.TemporaryDirectory() as folder:
        # As long as train-clean-100's utterances: 12.7 s in the mean.
        root = shards or str(make_shards(Path(folder), length=(435, 835)))
        found = starve(gather([root], eval_limit=1).shards, steps, workers)
    print(json.dumps({"shards": shards or "made up", **found}, indent=1))


def make_shards(
    folder: Path, n: int = 256, shard_size: int = 64, length: tuple[int, int] = (50, 250)
) -> Path:
    """A training split of random frames (T, 512), T within `length` (1 to 5 s), with texts of two to
    eight words."""
    rng = np.random.default_rng(0)
    words = [
        "the",
        "red",
        "cup",
        "is",
        "near",
        "a",
        "blue",
        "door",
        "and",
        "my",
        "friend",
        "has",
        "two",
        "gold",
        "lamps",
    ]
    config = {"encoder": "random", "layers": "last", "dtype": "float16"}
    spec = SplitSpec(folder / "train-random", "train-random", "train", config, shard_size)
    for shard, begin in enumerate(range(0, n, shard_size)):
        with ShardWriter(spec, shard) as writer:
            for i in range(begin, min(begin + shard_size, n)):
                frames = int(rng.integers(*length))
                text = " ".join(rng.choice(words, int(rng.integers(2, 9))))
                meta = {
                    "id": f"random-{i:04d}", "split": spec.split, "speaker": f"s{i % 8}",
                    "chapter": "", "sex": "", "text": text, "text_norm": text,
                    "n_samples": frames * 320, "n_frames": frames, "n_chunks": 1,
                    "sha256": hashlib.sha256(str(i).encode()).hexdigest(),
                }  # fmt: skip
                writer.add(meta, rng.standard_normal((frames, 512)).astype(np.float16))
            writer.commit("", {}, {})
    write_index(spec, -(-n // shard_size))
    return folder


def make_trainee(lm: NanoChat, tok: Tokenizer, meta: dict[str, Any], sample: np.ndarray) -> Trainee:
    """The default recipe's projector on this LM."""
    projector = build_projector(
        d_in=sample.shape[-1], n_embd=lm.config.n_embd, n_ve=lm.n_ve, kv_dim=lm.kv_dim
    ).to(lm.device)
    return Trainee(lm, tok, projector, choose_template(meta), make_optimizer(projector, 1e-3))


def stream_against_memory(trainee: Trainee, spec: StreamSpec, steps: int) -> dict[str, float]:
    """Seconds a step with batches streamed, and with the very same batches held in memory.

    Rounds alternate, so that a slow spell of the machine falls on both.
    """
    held = list(itertools.islice(batches(spec), steps))
    train_step(trainee, held[0], 1e-4)  # warm
    streamed, memory = [], []
    stream = batches(spec)
    for packed in held:
        streamed.append(_timed(trainee, lambda: next(stream)))
        memory.append(_timed(trainee, lambda packed=packed: packed))
    stream.close()
    a, b = float(np.median(streamed)), float(np.median(memory))
    return {"step_streamed_s": a, "step_memory_s": b, "stream_cost": a / b - 1}


def _timed(trainee: Trainee, fetch: Any) -> float:
    begin = time.perf_counter()
    packed: Packed = fetch()
    train_step(trainee, packed, 1e-4)
    return time.perf_counter() - begin


def against_whisper_in_the_loop(step_s: float, batch_size: int, clips: int) -> dict[str, float]:
    """Seconds to encode one batch of 30 s windows (any shorter clip costs the same), and how much
    longer a step would be if it had to."""
    encoder = load_encoder()
    waves = [
        np.random.default_rng(i).standard_normal(16000 * 4).astype(np.float32) for i in range(clips)
    ]
    encoder.encode(waves[:1])
    begin = time.perf_counter()
    for i in range(0, clips, 2):
        encoder.encode(waves[i : i + 2])
    encode_s = (time.perf_counter() - begin) / clips * batch_size
    return {"encode_batch_s": encode_s, "whisper_in_the_loop": (step_s + encode_s) / step_s}


def supervised_positions(rows: int = 8, audio: int = 150, text: int = 40) -> dict[str, float]:
    """Time and peak memory of the loss with lm_head at supervised positions, and at all of them,
    on a random d4 of nanochat's own vocabulary (32,768)."""
    out: dict[str, float] = {}
    config = NanoChatConfig(2048, 32768, 4, 2, 2, 256, "L")
    lm = random_init(config).freeze()
    T = audio + text
    embeds = torch.randn(rows, T, 256, requires_grad=True)
    targets = torch.full((rows, T), -1)
    targets[:, audio:] = 1
    asked = (targets.flatten() >= 0).nonzero()[:, 0]
    batch = Batch(embeds, None, targets, torch.full((rows,), T), asked)

    def everywhere() -> torch.Tensor:
        logits = lm.forward_embeds(batch.rows)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    for name, loss in (
        ("supervised", lambda: token_losses(lm, batch).nll.mean()),
        ("everywhere", everywhere),  # the larger last: the peak of a process only grows
    ):
        loss().backward()
        begin = time.perf_counter()
        loss().backward()
        out[f"loss_{name}_s"] = time.perf_counter() - begin
        out[f"peak_after_{name}_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return out


if __name__ == "__main__":
    main()
