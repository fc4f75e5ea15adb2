"""The two long commands as they are, on made-up data: which stage of extraction binds, and how long a
training waits for its data.

Random weights, noise for speech; recordings and frames as long as LibriSpeech's mean. Must not know how
either command does it.
"""

import contextlib
import json
import tempfile
import time
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from bench.card.encoding import WINDOWS_OF_100_HOURS, random_encoder
from bench.card.rows import Budget, Row
from bench.card.training import FRAMES, random_lm, text_of
from omni.nanochat.checkpoint import load_checkpoint
from omni.nanochat.config import NanoChatConfig

EXTRACTION, WAITING = "Extraction, whole", "Training, whole"
SECONDS, RATE = 12.7, 16_000
DECODERS = 16


def extraction(device: torch.device, budget: Budget, clips: int, layers: int) -> Iterator[Row]:
    """Windows a second from files to shards, and each stage's share of that time.

    Args:
        clips: recordings of 12.7 s; some hundred keep a card busy for seconds.
    """
    from extract.corpora.folder import folder_manifest
    from extract.pipeline import extract_shards
    from extract.run import Settings, make_job

    on_card = device.type == "cuda"
    encoder = random_encoder(device, torch.float16 if on_card else torch.float32, layers)
    batch, decoders = (64, DECODERS) if on_card else (2, 2)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _write_clips(root / "clips", clips)
        manifest = folder_manifest(root / "clips", "card", "none", "train")
        best: tuple[float, dict[str, float]] = (float("inf"), {})
        for number in range(3):  # the first warms up
            if number > 1 and budget.left < best[0]:
                break
            settings = Settings(
                root / str(number), "last", max(clips // 4, 1), None, batch, decoders, 0, False
            )
            job = make_job(manifest, encoder, settings)
            began = time.perf_counter()
            stats = extract_shards(job, encoder, range(len(job.plan)))
            best = min(best, (time.perf_counter() - began, stats.seconds), key=lambda b: b[0])
    taken, stages = best
    stages = {k: v / (decoders if k == "decode" else 1) for k, v in stages.items()}
    rate = clips / taken
    yield Row(EXTRACTION, "files to shards", rate, "windows/s", f"{decoders} threads decode wav")
    for stage, seconds in stages.items():
        share = 100 * seconds / taken
        yield Row(EXTRACTION, f"{stage}, of the wall time", share, "%", "stages overlap")
    binds = max(stages, key=lambda stage: stages[stage])
    yield Row(EXTRACTION, "the stage that binds", 100 * stages[binds] / taken, "%", binds)
    yield Row(EXTRACTION, "100 hours", WINDOWS_OF_100_HOURS / rate, "s", "computed")


def _write_clips(folder: Path, n: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        noise = rng.integers(-3000, 3000, int(SECONDS * RATE), dtype=np.int16)
        with wave.open(str(folder / f"{i:05d}.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes(noise.tobytes())


def waiting(
    device: torch.device, configs: dict[str, NanoChatConfig], batch: int, steps: int
) -> Iterator[Row]:
    """The training loop from shards on disk, with the smallest LM: it waits the most.

    Args:
        batch, steps: utterances a step, and steps of the run.
    """
    from train import loop, start
    from train.options import TrainOptions

    name, config = next(iter(configs.items()))
    _, tok, meta = load_checkpoint("demo", "cpu")
    lm = random_lm(replace(config, vocab_size=max(config.vocab_size, tok.vocab_size)), device)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        _write_shards(root / "shards", 8 * batch, text_of(tok))
        loaded = mock.Mock(return_value=(lm, tok, meta))
        stack.enter_context(mock.patch.object(start, "load_checkpoint", loaded))
        options = TrainOptions(
            shards=(str(root / "shards"),), steps=steps, batch_size=batch, eval_limit=2,
            decode_limit=0, wandb="disabled", device=str(device),
        )  # fmt: skip
        loop.train(options, root / "run")
        lines = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    what = f"{name}, batch {batch}"
    waited = 100 * trained[-1]["data_wait"]
    yield Row(WAITING, f"{what}, waiting for data", waited, "%", f"of {steps} steps' time")
    late = sorted(line["soft_per_s"] + line["tokens_per_s"] for line in trained[steps // 2 :])
    middle = late[len(late) // 2]
    yield Row(WAITING, f"{what}, positions", middle, "1/s", "soft tokens and text, data included")


def _write_shards(folder: Path, n: int, text: str) -> None:
    """A training and an evaluation split of random frames, one speaker each."""
    from omni.formats.shard_writer import ShardWriter, SplitSpec, write_index

    config = {"encoder": "random", "layers": "last", "dtype": "float16"}
    frames = np.random.default_rng(0).standard_normal((FRAMES + 64, 512)).astype(np.float16)
    for name, role, count in (("train-card", "train", n), ("dev-card", "eval", 4)):
        spec = SplitSpec(folder / name, name, role, config, 64)
        cuts = range(0, count, 64)
        for shard, begin in enumerate(cuts):
            with ShardWriter(spec, shard) as writer:
                for i in range(begin, min(begin + 64, count)):
                    key = f"{name}-{i:05d}"
                    meta = {
                        "id": key, "split": name, "speaker": name, "chapter": "", "sex": "",
                        "text": text, "text_norm": text, "n_samples": FRAMES * 320,
                        "n_frames": FRAMES, "n_chunks": 1, "sha256": key,
                    }  # fmt: skip
                    writer.add(meta, frames[i % 64 : i % 64 + FRAMES])
                writer.commit("", {}, {})
        write_index(spec, len(cuts))
