"""omni-extract from corpus to shards: exact on real speech, the same bytes after a kill.

.venv/bin/python -m pytest tests/extract/test_pipeline.py
"""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from extract_kit import command, deterministic_bytes
from kill_kit import command_that_dies, died
from speech_kit import librivox_tree, noise_tree, tiny_encoder

from cli.extract import main
from extract.corpora.librispeech import (
    librispeech_manifest,
)
from extract.engines import Rank, rank_from_environment
from extract.run import Settings, extract_split
from omni.audio import load_audio
from omni.formats.shards import read
from omni.formats.splits import open_split
from omni.whisper.encoder import load_encoder


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return noise_tree(tmp_path_factory.mktemp("corpus"), 11)


# ---- extraction -------------------------------------------------------------------------------


def test_real_speech_to_shards_equals_whisper(tmp_path: Path) -> None:
    """Five LibriVox clips as LibriSpeech, the command a user runs, whisper-base's features."""
    root = librivox_tree(tmp_path)
    out = tmp_path / "shards"
    args = ["--root", str(root), "--split", "test-clean", "--out", str(out), "--device", "cpu"]
    code = main([*args, "--manifests", str(tmp_path / "manifests")])
    assert code == 0
    samples = list(read(e.path for e in open_split(out / "test-clean").shards))
    assert sorted(s.key for s in samples) == [f"870-1-{i:04d}" for i in range(5)]
    encoder = load_encoder(device="cpu")
    for sample in samples:
        wave = load_audio(root / "LibriSpeech" / "test-clean" / "870" / "1" / f"{sample.key}.flac")
        with torch.no_grad():
            mel, counts = encoder.mel([wave])
            whole = encoder.module(mel).last_hidden_state[0, : counts[0]].numpy()
        ours = sample.features.astype(np.float32)
        assert sample.meta["n_samples"] == len(wave)
        assert sample.meta["sex"] == "F"
        assert np.linalg.norm(ours - whole) / np.linalg.norm(whole) < 1e-3


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, encoder_folder: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert main(command(corpus, encoder_folder, out)) == 0
    return out / "dev-clean"


def test_shards_of_a_tree(uninterrupted: Path) -> None:
    split = open_split(uninterrupted)
    assert [entry.n for entry in split.shards] == [4, 4, 3]
    samples = list(read(entry.path for entry in split.shards))
    assert len({s.key for s in samples}) == 11
    sample = next(s for s in samples if s.key == "12-5-0002")
    assert sample.meta["text"] == "WORD 2 OF SPEAKER 12"
    assert sample.meta["n_samples"] == 8000 + 74
    assert sample.features.shape == (26, 16)
    fields = "chapter id n_chunks n_frames n_samples sex sha256 speaker split text text_norm"
    assert " ".join(sorted(sample.meta)) == fields
    assert not any(value is None for value in sample.meta.values())


def test_run_again_does_nothing_and_a_lost_shard_comes_back(
    corpus: Path, encoder_folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    assert main(command(corpus, encoder_folder, tmp_path)) == 0
    folder = tmp_path / "dev-clean"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    (folder / "dev-clean-000001.json").unlink()
    (folder / ".dev-clean-000001.other-host-1.tmp").write_bytes(b"left by a kill")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / f".index.json.{socket.gethostname()}-{dead.pid}.tmp").write_bytes(b"left too")
    assert main(command(corpus, encoder_folder, tmp_path)) == 0
    changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["dev-clean-000001.tar"]
    assert deterministic_bytes(folder) == deterministic_bytes(uninterrupted)


def test_killed_in_mid_shard_and_run_again_gives_the_same_bytes(
    encoder_folder: Path, tmp_path: Path
) -> None:
    corpus = noise_tree(tmp_path, 40, seconds=2.0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(corpus, encoder_folder, whole, "--shard-size", "20")) == 0
    args = command(corpus, encoder_folder, killed, "--shard-size", "20")
    process = subprocess.run(command_that_dies(tmp_path / "marker", *args), capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    half_written = killed / "dev-clean" / died(tmp_path / "marker")
    assert half_written.exists()
    assert sorted(path.name for path in (killed / "dev-clean").glob("dev-clean-*")) == [
        "dev-clean-000000.json",
        "dev-clean-000000.tar",
    ]
    assert main(args) == 0
    assert not half_written.exists()
    assert deterministic_bytes(killed / "dev-clean") == deterministic_bytes(whole / "dev-clean")


def test_three_ranks_write_what_one_process_writes(
    corpus: Path, encoder_folder: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(str(encoder_folder))
    manifest = librispeech_manifest(corpus, "dev-clean")
    settings = Settings(tmp_path, "last", 4, None, 2, 1, 0, False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    outcomes = [extract_split(manifest, encoder, settings, Rank(r, 3)) for r in (2, 0, 1)]
    torch.set_num_threads(threads)
    assert [o.complete for o in outcomes] == [False, False, True]
    assert deterministic_bytes(tmp_path / "dev-clean") == deterministic_bytes(uninterrupted)


def test_ranks_come_from_torchrun_or_slurm() -> None:
    assert rank_from_environment({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Rank(
        1, 4, 1
    )
    assert rank_from_environment({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}) == Rank(2, 3, 0)
    assert rank_from_environment({}) == Rank(0, 1, 0)


def test_another_configuration_is_refused_and_overwritten_on_demand(
    corpus: Path, encoder_folder: Path, tmp_path: Path, capsys
) -> None:
    assert main(command(corpus, encoder_folder, tmp_path, "--limit", "4")) == 0
    assert main(command(corpus, encoder_folder, tmp_path, "--layers", "1")) == 1
    error = capsys.readouterr().err
    assert "layers last there, [1] now" in error
    assert "Traceback" not in error
    assert main(command(corpus, encoder_folder, tmp_path, "--limit", "4", "--shard-size", "2")) == 1
    assert "--shard-size 4" in capsys.readouterr().err
    ranks = ["--overwrite", "--rank", "0", "--world-size", "2"]
    assert main(command(corpus, encoder_folder, tmp_path, "--layers", "1", *ranks)) == 1
    assert "with several ranks" in capsys.readouterr().err
    assert main(command(corpus, encoder_folder, tmp_path, "--layers", "1", "--overwrite")) == 0
    sample = next(read(e.path for e in open_split(tmp_path / "dev-clean").shards))
    assert sample.features.shape == (1, sample.meta["n_frames"], 16)


def test_a_limit_that_goes_keeps_whole_shards_and_one_that_comes_is_refused(
    corpus: Path, encoder_folder: Path, uninterrupted: Path, tmp_path: Path, capsys
) -> None:
    assert main(command(corpus, encoder_folder, tmp_path, "--limit", "6")) == 0
    assert open_split(tmp_path / "dev-clean").n == 6
    assert main(command(corpus, encoder_folder, tmp_path)) == 0
    assert "2+1" in capsys.readouterr().out
    assert deterministic_bytes(tmp_path / "dev-clean") == deterministic_bytes(uninterrupted)
    (tmp_path / "dev-clean" / "dev-clean-000000.json").unlink()
    assert main(command(corpus, encoder_folder, tmp_path, "--limit", "4")) == 1
    assert "more shards there" in capsys.readouterr().err


# ---- bad input --------------------------------------------------------------------------------


@pytest.fixture
def bad_corpus(tmp_path: Path) -> Path:
    """A tree in which six things are wrong."""
    root = noise_tree(tmp_path / "bad", 10)
    chapter = root / "LibriSpeech" / "dev-clean" / "11" / "5"
    (chapter / "11-5-0000.flac").write_bytes(b"")
    whole = (chapter / "11-5-0001.flac").read_bytes()
    (chapter / "11-5-0001.flac").write_bytes(whole[: len(whole) // 2])
    (chapter / "11-5-0002.flac").write_bytes(b"fLaC" + b"\xff" * 500)
    (chapter / "11-5-0003.flac").unlink()
    soundfile.write(chapter / "11-5-0009.flac", np.zeros(1600), 16_000)  # in no transcript
    (chapter / "11-5-0004.flac").unlink()
    soundfile.write(chapter / "11-5-0004.wav", np.zeros(0), 16_000)
    return root


def test_what_cannot_be_extracted_is_recorded_and_the_rest_goes_on(
    bad_corpus: Path, encoder_folder: Path, tmp_path: Path, capsys
) -> None:
    assert main(command(bad_corpus, encoder_folder, tmp_path)) == 3
    folder = tmp_path / "dev-clean"
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    reasons = {failure["id"]: failure["reason"] for failure in failures}
    assert "0 bytes" in reasons["11-5-0000"]
    assert "decoded" in reasons["11-5-0001"] or "cut off" in reasons["11-5-0001"]
    assert "decoded" in reasons["11-5-0002"]
    assert reasons["11-5-0003"] == "transcript without audio"
    assert reasons["11-5-0009"] == "audio without transcript"
    assert reasons["11-5-0004"] == "audio is empty"
    assert len(reasons) == 6
    assert {s.key for s in read(e.path for e in open_split(folder).shards)} == {
        f"12-5-{i:04d}" for i in range(5)
    }
    assert "failures are listed in" in capsys.readouterr().out


def test_too_many_failures_stop_the_run(
    bad_corpus: Path, encoder_folder: Path, tmp_path: Path, capsys
) -> None:
    assert main(command(bad_corpus, encoder_folder, tmp_path, "--max-failures", "2")) == 1
    assert "more than 2 utterances failed" in capsys.readouterr().err
    assert not list((tmp_path / "dev-clean").glob(".*.tmp"))


def test_a_disk_too_small_is_told_before_the_start(
    corpus: Path, encoder_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("extract.run.shutil.disk_usage", lambda _p: usage._replace(free=10_000))
    assert main(command(corpus, encoder_folder, tmp_path)) == 1
    assert "are free" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_whole_shards(
    corpus: Path, encoder_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    from omni.formats.shard_writer import EncodedSample, ShardWriter

    append = ShardWriter.append

    def full(self: ShardWriter, sample: EncodedSample) -> None:
        if self.name.endswith("2"):
            raise OSError(28, "No space left on device")
        append(self, sample)

    monkeypatch.setattr(ShardWriter, "append", full)
    assert main(command(corpus, encoder_folder, tmp_path)) == 1
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    folder = tmp_path / "dev-clean"
    assert sorted(p.name for p in folder.glob("*.tar")) == [
        f"dev-clean-00000{i}.tar" for i in (0, 1)
    ]
    assert not list(folder.glob(".*.tmp"))
    assert main(command(corpus, encoder_folder, tmp_path)) == 0


def test_questions_without_an_answer_end_in_one_line(tmp_path: Path, capsys) -> None:
    args = ["--split", "train-clean-100", "--source", "disk", "--downloads", str(tmp_path)]
    assert main(args) == 1
    assert "give --root" in capsys.readouterr().err
    assert main(["--split", "nonesuch", "--downloads", str(tmp_path)]) == 1
    assert "where is the corpus?" in capsys.readouterr().err
    assert main(["--split", "smoke", "--rank", "0", "--manifests", str(tmp_path)]) == 1
    assert "--rank and --world-size go together" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["--split", "smoke", "--device", "cuda", "--manifests", str(tmp_path)]) == 1
        assert "no CUDA device" in capsys.readouterr().err
    assert main(["--split", "dev-clean", "--root", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


# ---- the embedded corpora ---------------------------------------------------------------------


def test_smoke_clips_are_made_on_the_spot(encoder_folder: Path, tmp_path: Path) -> None:
    args = ["--split", "smoke", "--encoder", str(encoder_folder), "--out", str(tmp_path / "s")]
    assert main([*args, "--manifests", str(tmp_path / "m"), "--device", "cpu"]) == 0
    split = open_split(tmp_path / "s" / "smoke")
    assert (split.n, split.role) == (5, "smoke")
    assert all(n == 250 for entry in split.shards for n in entry.n_frames)


def test_demo_has_three_splits(encoder_folder: Path, tmp_path: Path) -> None:
    args = ["--split", "demo", "--encoder", str(encoder_folder), "--out", str(tmp_path / "s")]
    more = ["--manifests", str(tmp_path / "m"), "--device", "cpu", "--limit", "3"]
    assert main([*args, *more]) == 0
    for name, role in (
        ("demo-train", "train"),
        ("demo-heldout", "eval"),
        ("demo-heldout-voice", "eval"),
    ):
        split = open_split(tmp_path / "s" / name)
        assert (split.n, split.role) == (3, role)
        assert (tmp_path / "m" / f"{name}.parquet").is_file()
