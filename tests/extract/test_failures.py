"""What is wrong with one utterance, at whatever stage, is recorded; what is not its fault ends the run.

.venv/bin/python -m pytest tests/extract/test_failures.py
"""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speech_kit import tiny_encoder

from cli.extract import main
from extract import ahead
from extract.encode import BatchEncoder, OwnedWindow, Pending
from extract.run import Settings, extract_split
from omni.errors import OmniError
from omni.formats.manifest import Manifest, Utterance
from omni.formats.shard_writer import EncodedSample, ShardWriter
from omni.formats.shards import read
from omni.formats.splits import open_split
from omni.whisper.encoder import WhisperEncoder, load_encoder
from omni.whisper.window import EXACT

GOOD = ("g0", "g1", "g2")


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three good recordings."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(GOOD):
        wave = 0.1 * rng.standard_normal(8000 + 100 * i)
        soundfile.write(folder / f"{name}.wav", wave, 16_000, subtype="FLOAT")
    return folder


def extract(corpus: Path, encoder: Path, *more: str) -> int:
    out = corpus.parent / "out"
    args = ["--audio-dir", str(corpus), "--split", "talks", "--transcripts", "none"]
    where = ["--out", str(out), "--manifests", str(out / "manifests"), "--device", "cpu"]
    return main([*args, *where, "--encoder", str(encoder), "--threads", "1", *more])


def kinds(corpus: Path) -> dict[str, str]:
    lines = (corpus.parent / "out" / "talks" / "failures.jsonl").read_text().splitlines()
    return {row["id"]: row["kind"] for row in map(json.loads, lines)}


def stored(corpus: Path) -> set[str]:
    return {s.key for s in read(e.path for e in open_split(corpus.parent / "out" / "talks").shards)}


def spoilt(corpus: Path, value: float, n: int = 8000, at: int = 4000) -> None:
    wave = (0.1 * np.random.default_rng(1).standard_normal(n)).astype(np.float32)
    wave[at] = value
    soundfile.write(corpus / "bad.wav", wave, 16_000, subtype="FLOAT")


@pytest.mark.parametrize("value", [1e25, -3e38, 3e30, np.nan, np.inf])
@pytest.mark.parametrize("more", [[], ["--dtype", "int8"], ["--window", "fit"]])
def test_a_sample_that_no_ear_hears_is_a_failure_of_its_own(
    corpus: Path, encoder_folder: Path, value: float, more: list[str]
) -> None:
    spoilt(corpus, value)
    assert extract(corpus, encoder_folder, *more) == 3
    assert kinds(corpus).keys() == {"bad"}
    assert kinds(corpus)["bad"] in ("not-finite", "unreadable")
    assert stored(corpus) == {*GOOD}


def test_in_a_later_window_too(corpus: Path, encoder_folder: Path) -> None:
    spoilt(corpus, 1e25, n=35 * 16_000, at=33 * 16_000)
    assert extract(corpus, encoder_folder) == 3
    assert kinds(corpus).keys() == {"bad"}
    assert stored(corpus) == {*GOOD}


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_features_that_overflow_are_a_failure(
    corpus: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    real = WhisperEncoder.encode_mel

    def overflows(self, mel, counts, *rest) -> torch.Tensor:
        features = real(self, mel, counts, *rest)
        parts = list(features.split(counts, dim=-2))
        bad = [i for i, n in enumerate(counts) if n == 26]  # g1, by its length
        for i in bad:
            parts[i] = parts[i] + float("inf")
        return torch.cat(parts, dim=-2)

    monkeypatch.setattr(WhisperEncoder, "encode_mel", overflows)
    assert extract(corpus, encoder_folder, "--dtype", dtype) == 3
    assert kinds(corpus) == {"g1": "not-finite", "g2": "not-finite"}
    assert stored(corpus) == {"g0"}


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a library's own"),
        RuntimeError("Unspecified internal error."),
        OSError(errno.EIO, "Input/output error"),
        MemoryError("23 petabytes"),
        RecursionError("deep"),
        OmniError("audio can't be decoded"),
    ],
)
def test_whatever_a_decoder_raises_over_one_file(
    corpus: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = ahead.load_piece

    def load(path: Path, *_: float) -> np.ndarray:
        if path.stem == "g1":
            raise error
        return real(path)

    monkeypatch.setattr(ahead, "load_piece", load)
    assert extract(corpus, encoder_folder) == 3
    assert kinds(corpus) == {"g1": "unreadable"}
    assert stored(corpus) == {"g0", "g2"}


def failing_mel(monkeypatch: pytest.MonkeyPatch, fails, error: Exception) -> None:
    real = WhisperEncoder.mel

    def mel(self, windows, *rest, **named):
        if any(fails(wave) for wave in windows):
            raise error
        return real(self, windows, *rest, **named)

    monkeypatch.setattr(WhisperEncoder, "mel", mel)


@pytest.mark.parametrize("batch", ["1", "2", "8"])
def test_a_window_that_the_encoder_fails_on(
    corpus: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, batch: str
) -> None:
    spoilt(corpus, 0.5, n=8777)
    failing_mel(monkeypatch, lambda wave: len(wave) == 8777 and wave.any(), RuntimeError("odd"))
    assert extract(corpus, encoder_folder, "--batch-size", batch) == 3
    assert kinds(corpus) == {"bad": "not-encoded"}
    assert stored(corpus) == {*GOOD}


def test_a_text_that_is_no_text(corpus: Path, encoder_folder: Path, tmp_path: Path) -> None:
    rows = [Utterance(n, audio=f"{n}.wav", n_samples=8000, sample_rate=16_000) for n in GOOD]
    rows[1] = Utterance("g1", audio="g1.wav", text="\udc80", text_norm="\udc80")
    manifest = Manifest("talks", "train", str(corpus), tuple(rows))
    outcome = extract_split(manifest, load_encoder(str(encoder_folder)), settings_of(tmp_path))
    assert (outcome.utterances, outcome.failures, outcome.complete) == (2, 1, True)
    assert kinds(corpus) == {"g1": "not-stored"}


def settings_of(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "out", "last", 4, None, 2, 1, 100, False)


# ---- what is not the utterance's fault --------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError("RAM"),
        RuntimeError("a bug of ours"),
    ],
)
def test_what_fails_whatever_is_encoded_ends_the_run(
    corpus: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing_mel(monkeypatch, lambda _: True, error)
    assert extract(corpus, encoder_folder) not in (0, 3)
    folder = corpus.parent / "out" / "talks"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.ENFILE])
def test_a_machine_at_its_end_is_no_failure_of_a_recording(
    corpus: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys, number: int
) -> None:
    def load(path: Path, *_: float) -> np.ndarray:
        raise OmniError("audio can't be decoded", str(path)) from OSError(number, "at its end")

    monkeypatch.setattr(ahead, "load_piece", load)
    assert extract(corpus, encoder_folder) == 1
    assert "at its end" in capsys.readouterr().err
    assert list((corpus.parent / "out" / "talks").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_no_more_ends_the_run(
    corpus: Path, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def append(self: ShardWriter, sample: EncodedSample) -> None:
        raise OSError(number, "no more")

    monkeypatch.setattr(ShardWriter, "append", append)
    assert extract(corpus, encoder_folder) == 1
    assert list((corpus.parent / "out" / "talks").iterdir()) == []


def test_failures_of_any_stage_count_towards_the_limit(
    corpus: Path, encoder_folder: Path, capsys
) -> None:
    spoilt(corpus, 1e25)
    (corpus / "half.wav").write_bytes((corpus / "g0.wav").read_bytes()[:60])
    assert extract(corpus, encoder_folder, "--max-failures", "1") == 1
    assert "more than 1 utterances failed" in capsys.readouterr().err
    assert list((corpus.parent / "out" / "talks").iterdir()) == []


def test_a_sound_window_is_no_failure(encoder_folder: Path) -> None:
    encoder = load_encoder(str(encoder_folder))
    encode = BatchEncoder(encoder, "last", EXACT, 2)
    windows = [OwnedWindow(np.full(800, 0.1, np.float32), Pending({"id": "a"}, 1), 0)]
    assert encode(windows, {"mel": 0.0, "encode": 0.0}).failed == []
