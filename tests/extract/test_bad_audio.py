"""A folder with recordings that are cut, absurd, joined or without a length: each fails by itself.

.venv/bin/python -m pytest tests/extract/test_bad_audio.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_kit import encode, hiss, put
from speech_kit import tiny_encoder

from cli.extract import main as extract
from omni.formats.shards import read_metas


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def corpus(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, blob in files.items():
        (folder / name).write_bytes(blob)
        (folder / name).with_suffix(".txt").write_text(f"words of {name.split('.')[0]}\n")
    return folder


def extracted(folder: Path, encoder: Path) -> tuple[int, dict[str, int], dict[str, str]]:
    """Exit status, samples of each utterance in the shards, reason of each failure."""
    out = folder.parent / "shards"
    code = extract(
        [
            *("--audio-dir", str(folder), "--split", "train-talks", "--encoder", str(encoder)),
            *("--out", str(out), "--manifests", str(folder.parent / "m"), "--device", "cpu"),
        ]
    )
    samples = {
        meta["id"]: meta["n_samples"] for tar in out.rglob("*.tar") for _, meta in read_metas(tar)
    }
    failures: dict[str, str] = {}
    for path in out.rglob("failures.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            failures[row["id"]] = row["reason"]
    return code, samples, failures


def test_whole_recordings_of_unusual_make_are_all_taken(tmp_path: Path, encoder: Path) -> None:
    flac = encode("FLAC", "PCM_16", hiss(8_000))
    ogg = encode("OGG", "VORBIS", hiss(8_000))
    wav = encode("WAV", "PCM_16", hiss(8_000))
    total = int.from_bytes(flac[21:26], "big") & ~((1 << 36) - 1)
    files = {
        "piped.flac": put(flac, 21, total, 5, "big"),
        "chain.ogg": ogg + ogg + ogg,
        "pipe.wav": put(wav, wav.index(b"data") + 4, 0xFFFFFFFF),
    }
    code, samples, failures = extracted(corpus(tmp_path / "talks", files), encoder)
    assert (code, failures) == (0, {})
    assert samples == {"piped": 8_000, "chain": 24_000, "pipe": 8_000}


def test_damaged_recordings_are_failures_of_their_own(tmp_path: Path, encoder: Path) -> None:
    absurd = hiss(4_800)
    absurd[1234] = 1e29
    files = {
        "good.wav": encode("WAV", "PCM_16", hiss(8_000)),
        "bad.wav": encode("WAV", "FLOAT", absurd),
        "cut.aiff": encode("AIFF", "PCM_16")[:-20_000],
        "half.opus": encode("OGG", "OPUS")[:4_000],
        "rate.wav": put(encode("WAV", "PCM_16"), 24, 2**31 - 1),
    }
    code, samples, failures = extracted(corpus(tmp_path / "talks", files), encoder)
    assert code == 3
    assert samples == {"good": 8_000}
    assert "1e+29 times as large as full scale" in failures["bad"]
    assert "cut off" in failures["cut"]
    assert "cut off" in failures["half"]
    assert "can't be resampled" in failures["rate"]


def test_an_inverted_channel_does_not_silence_the_other(tmp_path: Path, encoder: Path) -> None:
    wave = hiss(8_000)
    files = {
        "a.wav": encode("WAV", "FLOAT", np.stack([wave, -wave], axis=1)),
        "b.wav": encode("WAV", "FLOAT", wave),
    }
    folder = corpus(tmp_path / "talks", files)
    code, _, _ = extracted(folder, encoder)
    assert code == 0
    metas = [m for t in (tmp_path / "shards").rglob("*.tar") for _, m in read_metas(t)]
    assert len({meta["sha256"] for meta in metas}) == 1  # both are the one voice
    assert soundfile.info(str(folder / "a.wav")).channels == 2
