"""Memory that runs out anywhere in a command ends it in one line, with the option that takes less.

.venv/bin/python -m pytest tests/cli/test_memory_places.py
"""

import importlib
from typing import NamedTuple

import pytest
import torch
from run_kit import run_config, run_provenance
from speech_kit import noise_tree, tiny_encoder
from training_kit import save_lm, tiny_lm

from cli import eval as eval_
from cli import extract, lm, pca, smoke, transcribe
from omni import runs
from omni.bridge.projector import build_projector
from omni.formats.splits import find_splits


class World(NamedTuple):
    """What each command is given, by its name."""

    arguments: dict[str, list[str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Noise, its shards by a tiny encoder, and a run on a tiny LM."""
    root = tmp_path_factory.mktemp("world")
    encoder, corpus = tiny_encoder(root / "encoder"), noise_tree(root / "corpus", 6)
    made = [
        *("--split", "dev-clean", "--root", str(corpus), "--encoder", str(encoder)),
        *("--manifests", str(root / "m"), "--device", "cpu", "--out"),
    ]
    assert extract.main([*made, str(root / "shards")]) == 0
    (split,) = find_splits(root / "shards")
    llm = tiny_lm()
    save_lm(root / "lm", llm)
    projector = build_projector(
        d_in=16, n_embd=64, n_ve=llm.n_ve, kv_dim=llm.kv_dim, hidden=32, audio_ve="learned"
    )
    options = run_config()["train"] | {"shards": [str(root / "shards")]}
    config = run_config(projector.config, lm=str(root / "lm"), train=options)
    about = run_provenance(
        llm,
        fingerprint=split.fingerprint,
        fingerprint_config=split.fingerprint_config,
        longest_seconds=30.0,
    )
    run = runs.create_run(root / "runs" / "r", config, about)
    for which in runs.WHICH:
        runs.save_projector(run.path, which, projector)
    audio = str(next((root / "corpus").rglob("*.flac")))
    cpu = ["--device", "cpu"]
    return World(
        {
            "extract": [*made, str(root / "other")],
            "eval": [str(run.path), "--cascade", "off", *cpu],
            "pca": [str(root / "report.html"), "--run", str(run.path), *cpu],
            "transcribe": [audio, "--run", str(run.path), "--encoder", str(encoder), *cpu],
            "lm": ["inspect", str(root / "lm")],
            "smoke": ["--encoder", str(encoder), *cpu],
        }
    )


COMMANDS = {
    "extract": extract,
    "eval": eval_,
    "pca": pca,
    "transcribe": transcribe,
    "lm": lm,
    "smoke": smoke,
}

# Each place of each command where memory runs out, and how its line ends.
LOADING = "--device cpu, or a card with more memory"
PLACES = [
    ("extract", [], "omni.whisper.encoder.load_encoder", "a smaller --encoder, or --device cpu"),
    ("extract", [], "omni.whisper.encoder.WhisperEncoder.encode_mel", "--batch-size 1 halves it"),
    ("extract", ["--batch-size", "8"], "omni.whisper.encoder.WhisperEncoder.mel", "--batch-size 4 halves it"),
    ("extract", ["--batch-size", "1"], "omni.whisper.encoder.WhisperEncoder.mel", "--workers 1, or a smaller --encoder"),
    ("extract", [], "omni.formats.shard_writer.ShardWriter.append", "--batch-size 1 halves it"),
    ("extract", ["--dry-run"], "omni.whisper.encoder.WhisperEncoder.encode_windows", "--batch-size 1 halves it"),
    ("eval", [], "omni.nanochat.load_checkpoint", LOADING),
    ("eval", [], "omni.evaluation.evaluate.evaluate", "--batch-size 16 takes about half of it"),
    ("pca", [], "analyze.examine.load_checkpoint", LOADING),
    ("pca", [], "analyze.examine.evaluate", "--batch-size 16 takes about half of it"),
    ("pca", ["--batch-size", "4"], "analyze.measure.sample.project", "--batch-size 2 takes about half of it"),
    ("transcribe", [], "omni.transcriber.load_transcriber", LOADING),
    ("transcribe", [], "omni.transcriber.decode", "--batch-size 4 halves it"),
    ("transcribe", ["--batch-size", "1"], "omni.transcriber.decode", "--chunk-seconds 15 halves it"),
    ("lm", [], "omni.nanochat.inspection.load_checkpoint", "a machine with more memory"),
    ("smoke", [], "omni.whisper.encoder.load_encoder", "a smaller --encoder, or --device cpu"),
]  # fmt: skip


def on_a_card(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def pinned(*_: object, **__: object) -> None:
    raise torch.AcceleratorError("CUDA error: out of memory")


def on_the_host(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("lack", [on_a_card, pinned, on_the_host])
@pytest.mark.parametrize(("command", "more", "place", "mend"), PLACES)
def test_the_line_ends_with_what_takes_less(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    more: list[str],
    place: str,
    mend: str,
    lack: object,
) -> None:
    path, _, name = place.rpartition(".")
    try:
        owner = importlib.import_module(path)
    except ModuleNotFoundError:  # a method
        module, _, kind = path.rpartition(".")
        owner = getattr(importlib.import_module(module), kind)
    monkeypatch.setattr(owner, name, lack)
    assert COMMANDS[command].main([*world.arguments[command], *more]) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert line.startswith("error: out of memory"), line
    assert line.endswith(mend), line
