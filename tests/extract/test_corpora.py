"""Corpora other than LibriSpeech, and what the command says besides extracting.

.venv/bin/python -m pytest tests/extract/test_corpora.py
"""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main
from extract.corpora.choose import Source, find_manifests
from extract.corpora.folder import folder_manifest
from extract.corpora.hub import write_tree
from extract.corpora.noise import NOISE_SPLITS, noise
from omni.errors import OmniError
from omni.formats.shard_verify import split_folders, verify_split
from omni.formats.shards import read
from omni.formats.splits import open_split


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Three files at other rates, one in a folder with a dot and a space in its name."""
    folder = tmp_path / "talks"
    (folder / "day 1.5").mkdir(parents=True)
    for name, rate in (("a.wav", 8_000), ("b.flac", 44_100), ("day 1.5/c.ogg", 48_000)):
        soundfile.write(folder / name, 0.1 * np.sin(np.arange(rate // 2) / 9), rate)
    return folder


TEXTS = {"a.wav": "One,", "b.flac": 'Two "2"', "day 1.5/c.ogg": "Drei ä"}


def write_table(path: Path) -> None:
    rows = [
        {"path": p, "sentence": t, "client_id": "007", "gender": "female"} for p, t in TEXTS.items()
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = ["\t".join(rows[0])] + ["\t".join(row.values()) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
def test_transcripts_from_a_table(audio: Path, tmp_path: Path, kind: str) -> None:
    table = tmp_path / f"texts.{kind}"
    write_table(table)
    manifest = folder_manifest(audio, "talks", str(table))
    assert [u.id for u in manifest.utterances] == ["a", "b", "day 1.5/c"]
    assert [u.text for u in manifest.utterances] == list(TEXTS.values())
    assert {(u.speaker, u.sex, u.problem) for u in manifest.utterances} == {("007", "F", "")}
    assert [u.sample_rate for u in manifest.utterances] == [8_000, 44_100, 48_000]
    assert manifest.role == "train"


def test_transcripts_beside_the_audio_or_none(audio: Path) -> None:
    with pytest.raises(OmniError, match="--transcripts none"):
        folder_manifest(audio, "talks")
    (audio / "a.txt").write_text("One\n")
    (audio / "day 1.5" / "x.trans.txt").write_text("c DREI\nd VIER\n")
    rows = {u.id: (u.text, u.note) for u in folder_manifest(audio, "talks").utterances}
    assert rows == {
        "a": ("One", ""),
        "b": ("", "audio without transcript"),
        "day 1.5/c": ("DREI", ""),
        "day 1.5/d": ("VIER", "transcript without audio"),
    }
    plain = folder_manifest(audio, "talks", "none", "eval")
    assert {(u.text, u.problem) for u in plain.utterances} == {("", "")}
    assert plain.role == "eval"


def test_a_folder_that_is_no_corpus_is_told(audio: Path, tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="no such folder"):
        folder_manifest(tmp_path / "none", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OmniError, match="no audio files"):
        folder_manifest(tmp_path / "empty", "x")
    (tmp_path / "t.csv").write_text("speech,words\na.wav,one\n")
    with pytest.raises(OmniError, match=r"no column names the audio.*columns found: speech, words"):
        folder_manifest(audio, "x", str(tmp_path / "t.csv"))
    with pytest.raises(OmniError, match="can't be read"):
        folder_manifest(audio, "x", str(tmp_path / "none.tsv"))
    with pytest.raises(OmniError, match=r"use tsv, csv"):
        folder_manifest(audio, "x", str(tmp_path / "t.xlsx"))
    (audio / "a.flac").write_bytes((audio / "b.flac").read_bytes())
    with pytest.raises(OmniError, match=r"no audio files|occurs twice|two audio files"):
        folder_manifest(audio, "x", "none")


def test_sources_exclude_one_another(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="exclude one another"):
        find_manifests(Source("x", root=tmp_path, audio_dir=tmp_path))


def test_a_table_without_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    for where in ({"root": tmp_path}, {"manifest": tmp_path / "m.parquet"}, {}):
        with pytest.raises(OmniError, match="give --audio-dir"):
            find_manifests(Source("dev-clean", transcripts="t.tsv", **where))


def test_a_row_of_the_hub_is_a_line(tmp_path: Path) -> None:
    row = {"id": "1-2-0", "speaker_id": 1, "chapter_id": 2, "audio": {"bytes": b"x"}}
    write_tree([{**row, "text": "ONE\nTWO THREE"}], tmp_path)
    assert (tmp_path / "1" / "2" / "1-2.trans.txt").read_text() == "1-2-0 ONE TWO THREE\n"


def run_folder(audio: Path, encoder: Path, out: Path, *more: str) -> int:
    args = ["--audio-dir", str(audio), "--split", "talks", "--encoder", str(encoder)]
    args += ["--transcripts", "none", "--device", "cpu", "--out", str(out)]
    return main([*args, "--manifests", str(out / "m"), *more])


def test_a_folder_to_shards_and_from_its_manifest_again(
    audio: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_folder(audio, encoder_folder, out) == 0
    samples = {s.meta["id"]: s for s in read(e.path for e in open_split(out / "talks").shards)}
    assert set(samples) == {"a", "b", "day 1.5/c"}
    assert samples["day 1.5/c"].key == "day%201%2E5%2Fc"
    assert {s.meta["n_samples"] for s in samples.values()} == {8000}
    again = tmp_path / "again"
    args = ["--manifest", str(out / "m" / "talks.parquet"), "--encoder", str(encoder_folder)]
    assert main([*args, "--out", str(again), "--device", "cpu"]) == 0
    name = "talks/talks-000000.tar"
    assert (again / name).read_bytes() == (out / name).read_bytes()


def test_a_file_that_vanishes_after_the_manifest_is_a_recorded_failure(
    audio: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run_folder(audio, encoder_folder, out, "--manifest-only") == 0
    (audio / "b.flac").unlink()
    args = ["--manifest", str(out / "m" / "talks.parquet"), "--encoder", str(encoder_folder)]
    assert main([*args, "--out", str(out), "--device", "cpu"]) == 3
    failure = json.loads((out / "talks" / "failures.jsonl").read_text())
    assert failure == {"id": "b", "kind": "unreadable", "reason": "no such audio file"}
    assert open_split(out / "talks").n == 2


def test_int8_is_half_the_size_and_close(encoder_folder: Path, tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path / "corpus", 4, seconds=3.0)
    args = ["--root", str(corpus), "--split", "dev-clean", "--encoder", str(encoder_folder)]
    more = ["--manifests", str(tmp_path / "m"), "--device", "cpu"]
    for dtype in ("float16", "int8"):
        assert main([*args, *more, "--dtype", dtype, "--out", str(tmp_path / dtype)]) == 0
    halves, eighths = (
        list(read(e.path for e in open_split(tmp_path / dtype / "dev-clean").shards))
        for dtype in ("float16", "int8")
    )
    for a, b in zip(halves, eighths, strict=True):
        x, y = a.features.astype(np.float32), b.features.astype(np.float32)
        assert np.linalg.norm(x - y) / np.linalg.norm(x) < 0.01
    assert main([*args, *more, "--dtype", "int8", "--out", str(tmp_path / "float16")]) == 1


def test_dry_run_writes_nothing_and_json_tells_all(
    audio: Path, encoder_folder: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    assert run_folder(audio, encoder_folder, out, "--dry-run") == 0
    assert "1 shards, 1 to make: 3 utterances" in capsys.readouterr().out
    assert not (out / "talks").exists()
    assert run_folder(audio, encoder_folder, out, "--json", str(out / "sum.json")) == 0
    summary = json.loads((out / "sum.json").read_text())["talks"]
    assert (summary["utterances"], summary["failures"], summary["complete"]) == (3, 0, True)
    assert set(summary["stage_seconds"]) == {"decode", "mel", "encode", "write"}


# ---- verify and repair ------------------------------------------------------------------------


@pytest.fixture
def split(encoder_folder: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A split of three shards and the command that makes it."""
    corpus = noise_tree(tmp_path / "corpus", 6)
    args = ["--root", str(corpus), "--split", "dev-clean", "--encoder", str(encoder_folder)]
    args += ["--out", str(tmp_path / "out"), "--manifests", str(tmp_path / "m")]
    args += ["--shard-size", "2", "--device", "cpu", "--threads", "1"]
    assert main(args) == 0
    return tmp_path / "out" / "dev-clean", args


def flip(tar: Path, key: str) -> None:
    """Flip a bit in the last byte of a key's features."""
    import tarfile

    with tarfile.open(tar) as archive:
        member = archive.getmember(f"{key}.npy")
    blob = bytearray(tar.read_bytes())
    blob[member.offset_data + member.size - 1] ^= 1
    tar.write_bytes(blob)


def test_verify_names_shard_and_key_and_repair_makes_just_those(split, capsys) -> None:
    folder, args = split
    assert main(["--verify", str(folder.parent)]) == 0
    assert "every byte as it was written" in capsys.readouterr().out
    whole = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    keys = [s.key for s in read([folder / "dev-clean-000001.tar"])]
    flip(folder / "dev-clean-000001.tar", keys[1])
    (folder / "dev-clean-000002.tar").write_bytes(whole["dev-clean-000002.tar"][:3000])
    untouched = (folder / "dev-clean-000000.tar").stat().st_mtime_ns
    assert main(["--verify", str(folder)]) == 1
    said = capsys.readouterr().out
    assert f"dev-clean-000001 {keys[1]}: its bytes are not those that were written" in said
    assert "dev-clean-000002: 3000 bytes, written were" in said
    assert main([*args, "--repair"]) == 0
    assert "repair: dev-clean-000001" in capsys.readouterr().out
    assert (folder / "dev-clean-000000.tar").stat().st_mtime_ns == untouched
    assert {path.name: path.read_bytes() for path in folder.glob("*.tar")} == whole
    assert main(["--verify", str(folder)]) == 0


def test_verify_finds_what_is_missing(split) -> None:
    folder, _ = split
    (folder / "dev-clean-000000.json").unlink()
    (folder / "dev-clean-000001.tar").unlink()
    (folder / "index.json").unlink()
    faults = [str(fault) for fault in verify_split(folder)]
    assert len(faults) == 3
    assert faults[0].startswith("dev-clean-000000: the sidecar is missing")
    assert faults[1] == "dev-clean-000001: the tar is missing"
    assert faults[2].startswith("index.json: missing")
    with pytest.raises(OmniError, match="no shards there"):
        split_folders(folder / "nowhere")


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_verify_finds_damage_anywhere(split, place: float) -> None:
    folder, _ = split
    tar = folder / "dev-clean-000002.tar"
    blob = bytearray(tar.read_bytes())
    blob[int(len(blob) * place)] ^= 0x10
    tar.write_bytes(blob)
    faults = verify_split(folder)
    assert faults
    assert {fault.shard for fault in faults} == {"dev-clean-000002"}


def test_noise_is_the_same_every_time_and_says_nothing(tmp_path: Path) -> None:
    train, held_out = find_manifests(Source(split="noise", downloads=tmp_path))
    assert (train.role, held_out.role) == ("train", "eval")
    assert {m.split: len(m.utterances) for m in (train, held_out)} == NOISE_SPLITS
    assert all(u.text_norm == "" and not u.problem for u in train.utterances)
    unheard = {u.speaker for u in held_out.utterances} - {u.speaker for u in train.utterances}
    assert unheard == {"noise-clicks"}
    for u in (*train.utterances[:8], *held_out.utterances[:8]):
        wave, rate = soundfile.read(train.audio_path(u))
        assert (len(wave), rate) == (u.n_samples, 16_000)
        assert 1 <= u.seconds <= 8
        kind, made = noise(u.id[:-5], int(u.id[-4:]))
        assert u.speaker == f"noise-{kind}"
        np.testing.assert_allclose(wave, made, atol=2 / 32768)
        level = 20 * np.log10(np.sqrt(np.mean(wave**2)) + 1e-9)
        assert level < (-59 if kind == "silence" else -11)


def test_a_folder_of_noise_that_can_t_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "noise").write_text("a file, not a folder")
    with pytest.raises(OmniError, match="can't write"):
        find_manifests(Source(split="noise-train", downloads=tmp_path))
