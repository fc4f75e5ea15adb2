"""A piece of a recording is the samples that its times say, whatever the format.

.venv/bin/python -m pytest tests/extract/test_pieces.py
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from folder_kit import record, write_jsonl
from speech_kit import tiny_encoder

from cli.extract import main
from extract.inputs import audio_file
from extract.pieces import load_piece
from omni.audio import load_audio
from omni.errors import OmniError
from omni.formats.manifest import Utterance
from omni.formats.shards import read

SPANS = [(0.0, 1.0), (0.5, 0.25), (1.0, 0.0), (0.0, 1.9999), (1.9, 0.1), (0.00003, 1.0)]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".aiff", ".caf"])
def test_a_piece_is_cut_out_of_the_whole(tmp_path: Path, suffix: str, span) -> None:
    path = record(tmp_path / f"a{suffix}", 2.0, channels=2)
    begin, end = round(span[0] * 16_000), round(sum(span) * 16_000) if span[1] else None
    assert np.array_equal(load_piece(path, *span), load_audio(path)[begin:end])


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_piece_at_another_rate_differs_at_its_ends_alone(tmp_path: Path, rate: int) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.standard_normal(rate * 2), rate)
    piece, whole = load_piece(tmp_path / "a.wav", 0.5, 1.0), load_audio(tmp_path / "a.wav")
    assert len(piece) == 16_000
    assert np.allclose(piece[50:-50], whole[8_050:23_950], atol=1e-4)


@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
@pytest.mark.parametrize("span", [(1.5, 1.0), (5.0, 0.0), (5.0, 1.0)])
def test_a_piece_behind_the_end_is_refused(tmp_path: Path, suffix: str, span) -> None:
    path = record(tmp_path / f"a{suffix}", 2.0)
    with pytest.raises(OmniError, match=r"the piece ends at .* the recording has 2\.0"):
        load_piece(path, *span)


def test_a_file_of_many_pieces_is_hashed_once_however_they_are_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{i}.wav" for i in range(5_000)]
    for file in files:
        file.write_bytes(file.name.encode())
    read = []
    whole = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, kind: read.append(f) or whole(f, kind))
    for start in (1.0, 2.0):  # all files, then all again
        for file in files:
            audio_file(Utterance("u", audio=file.name, start=start, length=1.0), file)
    assert len(read) == len(files)


def test_a_damaged_recording_gives_no_piece(tmp_path: Path) -> None:
    path = record(tmp_path / "a.flac", 2.0)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(OmniError):
        load_piece(path, 1.5, 0.4)


def test_each_text_is_stored_with_its_own_piece(tmp_path: Path) -> None:
    record(tmp_path / "c" / "meeting.wav", 3.0)
    rows = [
        {
            "audio_filepath": "meeting.wav",
            "offset": i,
            "duration": 1.0 - i / 10,
            "text": f"words {i}",
        }
        for i in range(3)
    ]
    table = write_jsonl(tmp_path / "nemo.jsonl", rows)
    encoder = tiny_encoder(tmp_path / "encoder")
    args = ["--audio-dir", str(tmp_path / "c"), "--transcripts", str(table), "--split", "talks"]
    args += ["--encoder", str(encoder), "--device", "cpu", "--out", str(tmp_path / "s")]
    assert main([*args, "--manifests", str(tmp_path / "m")]) == 0
    samples = list(read(sorted((tmp_path / "s" / "talks").glob("*.tar"))))
    found = {s.meta["text"]: (s.meta["n_samples"], len(s.features)) for s in samples}
    assert found == {"words 0": (16_000, 50), "words 1": (14_400, 45), "words 2": (12_800, 40)}
    assert len({s.meta["sha256"] for s in samples}) == 3
