"""A corpus that was corrected is taken in by a rerun; one that was only copied keeps its shards.

.venv/bin/python -m pytest tests/extract/test_resume.py
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile
from extract_kit import deterministic_bytes
from speech_kit import tiny_encoder

from cli.extract import main
from extract import ahead
from extract.inputs import inputs_hash
from omni.formats.manifest import Utterance
from omni.formats.shards import read
from omni.formats.splits import open_split

ALL = ("u0", "u1", "u2", "u3")


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


def wave(path: Path, seed: int, n: int = 8000) -> None:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(n)
    soundfile.write(path, samples, 16_000, subtype="PCM_16")


class Corpus:
    """Four recordings in two shards; u1 is broken, u2 has no transcript."""

    def __init__(self, root: Path, encoder: Path) -> None:
        self.folder, self.out, self._encoder = root / "corpus", root / "out", encoder
        self.folder.mkdir()
        for i, name in enumerate(ALL):
            wave(self.folder / f"{name}.wav", i)
            (self.folder / f"{name}.txt").write_text(f"text of {name}\n")
        (self.folder / "u1.wav").write_bytes(b"RIFF, and no more")
        (self.folder / "u2.txt").unlink()

    def extract(self, *more: str, transcripts: str = "auto") -> int:
        args = ["--audio-dir", str(self.folder), "--split", "talks", "--transcripts", transcripts]
        where = ["--out", str(self.out), "--manifests", str(self.out / "manifests")]
        size = ["--shard-size", "2", "--device", "cpu", "--threads", "1"]
        return main([*args, *where, *size, "--encoder", str(self._encoder), *more])

    def texts(self) -> dict[str, str]:
        shards = open_split(self.out / "talks").shards
        return {s.meta["id"]: s.meta["text"] for s in read(e.path for e in shards)}

    def failures(self) -> dict[str, str]:
        lines = (self.out / "talks" / "failures.jsonl").read_text().splitlines()
        return {row["id"]: row["kind"] for row in map(json.loads, lines)}

    def times(self) -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in (self.out / "talks").glob("*.tar")}


@pytest.fixture
def corpus(tmp_path: Path, encoder_folder: Path) -> Corpus:
    made = Corpus(tmp_path, encoder_folder)
    assert made.extract() == 3
    assert made.failures() == {"u1": "unreadable", "u2": "no-text"}
    return made


def test_a_rerun_without_a_change_makes_nothing(corpus: Corpus, capsys) -> None:
    before = corpus.times()
    assert corpus.extract() == 3
    assert corpus.times() == before
    assert "made anew" not in capsys.readouterr().out


def test_a_limit_at_the_end_of_a_shard_takes_no_shards_from_the_index(corpus: Corpus) -> None:
    before = (corpus.out / "talks" / "index.json").read_bytes()
    assert corpus.extract("--limit", "2") == 1  # as if the corpus had lost a shard's utterances
    assert (corpus.out / "talks" / "index.json").read_bytes() == before


def test_corrections_are_taken_in_and_one_line_says_so(corpus: Corpus, capsys) -> None:
    (corpus.folder / "u0.txt").write_text("text of u0, corrected\n")
    (corpus.folder / "u2.txt").write_text("text of u2\n")
    wave(corpus.folder / "u1.wav", 9)
    assert corpus.extract() == 0
    assert corpus.texts() == {"u0": "text of u0, corrected", **{n: f"text of {n}" for n in ALL[1:]}}
    assert corpus.failures() == {}
    assert capsys.readouterr().out.count("made anew") == 1


def corrected_text(c: Corpus) -> None:
    (c.folder / "u3.txt").write_text("Text of u3\n")  # text_norm stays


def replaced_audio(c: Corpus) -> None:
    wave(c.folder / "u3.wav", 77)  # the same size


def replaced_by_another_format(c: Corpus) -> None:
    samples, rate = soundfile.read(c.folder / "u3.wav")
    soundfile.write(c.folder / "u3.wav", samples * 0.5, rate, subtype="PCM_24")


def broken_audio(c: Corpus) -> None:
    data = (c.folder / "u3.wav").read_bytes()
    (c.folder / "u3.wav").write_bytes(data[:44])


def missing_text(c: Corpus) -> None:
    (c.folder / "u3.txt").unlink()


@pytest.mark.parametrize(
    "change",
    [corrected_text, replaced_audio, replaced_by_another_format, broken_audio, missing_text],
)
def test_each_change_remakes_its_own_shard_alone(
    corpus: Corpus, change: Callable[[Corpus], None], tmp_path: Path
) -> None:
    before = corpus.times()
    change(corpus)
    assert corpus.extract() == 3
    after = corpus.times()
    (changed,) = [name for name, time in before.items() if after[name] != time]
    sidecars = [json.loads(p.read_text()) for p in (corpus.out / "talks").glob("talks-*.json")]
    of_u3 = json.loads((corpus.out / "talks" / changed).with_suffix(".json").read_text())
    assert "u3" in {of_u3["first"], of_u3["last"], *(f["id"] for f in of_u3["failures"])}
    assert len(sidecars) == 2
    again = Corpus.__new__(Corpus)  # as if it had always been so
    again.__dict__.update(corpus.__dict__, out=tmp_path / "fresh")
    assert again.extract() == 3
    assert deterministic(corpus.out / "talks") == deterministic(again.out / "talks")


def deterministic(folder: Path) -> dict[str, object]:
    return deterministic_bytes(folder)


def test_transcripts_none_and_then_a_table(corpus: Corpus) -> None:
    assert corpus.extract("--overwrite", transcripts="none") == 3
    assert set(corpus.texts().values()) == {""}
    table = corpus.out / "t.csv"
    table.write_text("audio,text,speaker\n" + "".join(f"{n}.wav,text {n},s\n" for n in ALL))
    assert corpus.extract(transcripts=str(table)) == 3
    assert corpus.texts() == {n: f"text {n}" for n in ("u0", "u2", "u3")}
    table.write_text("audio,text,speaker\n" + "".join(f"{n}.wav,text {n},t\n" for n in ALL))
    assert corpus.extract(transcripts=str(table)) == 3
    samples = read(e.path for e in open_split(corpus.out / "talks").shards)
    assert {s.meta["speaker"] for s in samples} == {"t"}


@pytest.mark.parametrize("moved", [False, True])
def test_a_copy_with_other_times_keeps_its_shards(
    corpus: Corpus, tmp_path: Path, moved: bool, capsys
) -> None:
    before = corpus.times()
    if moved:
        shutil.copytree(corpus.folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
        corpus.folder = tmp_path / "elsewhere"
    for path in corpus.folder.iterdir():
        os.utime(path, ns=(1, 1))
    assert corpus.extract() == 3
    assert corpus.times() == before
    assert "made anew" not in capsys.readouterr().out


def test_bytes_changed_behind_the_same_size_and_time_are_found_by_repair(corpus: Corpus) -> None:
    path = corpus.folder / "u3.wav"
    time = path.stat().st_mtime_ns
    replaced_audio(corpus)
    os.utime(path, ns=(time, time))
    before = corpus.times()
    assert corpus.extract() == 3
    assert corpus.times() == before
    assert corpus.extract("--repair") == 3
    assert len([name for name, t in before.items() if corpus.times()[name] != t]) == 1


def test_what_could_not_be_decoded_is_tried_again(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package was installed, a permission given: the file is the same."""
    real = ahead.load_piece

    def load(path: Path, start: float, length: float) -> np.ndarray:
        return real(path.with_stem("u0") if path.stem == "u1" else path, start, length)

    monkeypatch.setattr(ahead, "load_piece", load)
    assert corpus.extract() == 3
    assert corpus.failures() == {"u2": "no-text"}


def test_a_disk_that_is_away_takes_nothing_with_it(corpus: Corpus, capsys) -> None:
    manifest = ["--manifest", str(corpus.out / "manifests" / "talks.parquet")]
    where = ["--out", str(corpus.out), "--shard-size", "2", "--device", "cpu", "--threads", "1"]
    args = [*manifest, *where, "--encoder", str(corpus._encoder)]
    before = deterministic(corpus.out / "talks")
    corpus.folder.rename(corpus.folder.with_name("away"))
    assert main(args) == 1
    assert "are gone" in capsys.readouterr().err
    assert deterministic(corpus.out / "talks") == before
    corpus.folder.with_name("away").rename(corpus.folder)
    assert main(args) == 3
    assert deterministic(corpus.out / "talks") == before


def test_a_disk_that_was_away_at_first(corpus: Corpus, capsys) -> None:
    manifest = ["--manifest", str(corpus.out / "manifests" / "talks.parquet")]
    where = ["--out", str(corpus.out / "late"), "--device", "cpu", "--threads", "1"]
    args = [*manifest, *where, "--encoder", str(corpus._encoder)]
    corpus.folder.rename(corpus.folder.with_name("away"))
    assert main(args) == 3
    assert open_split(corpus.out / "late" / "talks").n == 0
    corpus.folder.with_name("away").rename(corpus.folder)
    assert main(args) == 3
    assert open_split(corpus.out / "late" / "talks").n == 2


def test_shards_of_an_earlier_plan_are_made_again(corpus: Corpus) -> None:
    sidecar = corpus.out / "talks" / "talks-000000.json"
    content = json.loads(sidecar.read_text())
    content["plan"] = "0" * 64
    del content["environment"]["stamp"]
    sidecar.write_text(json.dumps(content))
    before = corpus.times()
    assert corpus.extract() == 3
    assert [n for n, t in before.items() if corpus.times()[n] != t] == ["talks-000000.tar"]


def test_every_column_that_a_shard_depends_on_is_in_the_hash() -> None:
    plain = Utterance("a", audio="a.wav", n_samples=1, sample_rate=8)
    same = {
        "audio",
        "n_samples",
        "sample_rate",
        "problem",
        "note",
        "pace",
        "pitch",
        "accent",
        "sound",
    }
    base = inputs_hash([(plain, "x")])
    assert inputs_hash([(plain, "y")]) != base
    for field in fields(Utterance):
        other = {"problem": "no-text"}.get(field.name, 7 if field.type in (int, float) else "other")
        changed = Utterance(**{**plain.__dict__, field.name: other})
        if field.name in same - {"problem"}:
            assert inputs_hash([(changed, "x")]) == base, field.name
        elif field.name != "problem":
            assert inputs_hash([(changed, "x")]) != base, field.name


@pytest.mark.parametrize(
    ("utterance", "made"),
    [
        (Utterance("a"), "43404522001394c4"),
        (
            Utterance("a/b", "9", "4", "F", "x.flac", 0.0, 0.0, 8, 8, "A b.", "a b."),
            "824b41bc63afaeda",
        ),
        (
            Utterance("m-0001000-0002500", start=1.0, length=1.5, text="é", text_norm="é"),
            "6cffdb52a312de76",
        ),
        (Utterance("c", pace="slow", pitch="low", accent="GB", sound="hum"), "7faace84af436116"),
    ],
)
def test_shards_of_earlier_versions_are_not_made_again(utterance: Utterance, made: str) -> None:
    """A column that a shard doesn't hold must not change the hash of those that were made without it."""
    assert inputs_hash([(utterance, "0123")])[:16] == made
