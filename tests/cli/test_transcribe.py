"""omni-transcribe: the same rows and token ids as in training, any audio, one line per fault."""

import io
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from adapters_kit import folded, loud_lora
from run_kit import run_config, run_provenance
from speech_kit import noise_tree, tiny_encoder
from training_kit import save_lm, tiny_lm

from cli.extract import main as extract
from cli.transcribe import main as transcribe
from omni import runs
from omni.audio import load_audio
from omni.bridge.projector import build_projector, project
from omni.bridge.prompt import build_batch, build_turns
from omni.bridge.turns import Turn, choose_template
from omni.errors import OmniError, printable
from omni.formats import shards
from omni.formats.splits import SplitIndex, find_splits
from omni.nanochat.generate import generate
from omni.transcriber import Transcriber, cut_at_pauses, load_transcriber
from omni.whisper.window import Window


class World(NamedTuple):
    """A run, its features and its audio."""

    run: Path
    encoder: Path
    split: SplitIndex
    audio: list[Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Extracted shards, a run with a random projector on a random LM: what training leaves."""
    root = tmp_path_factory.mktemp("world")
    encoder = tiny_encoder(root / "encoder")
    noise_tree(root / "corpus", 4, seconds=0.7)
    code = extract(
        [
            *("--split", "dev-clean", "--root", str(root / "corpus"), "--encoder", str(encoder)),
            *("--out", str(root / "shards"), "--manifests", str(root / "m"), "--device", "cpu"),
        ]
    )
    assert code == 0
    split = find_splits(root / "shards")[0]
    lm = tiny_lm()
    lm.lm_head.weight.data[128:] = 0  # it writes ASCII, so that its text encodes to its ids again
    save_lm(root / "lm", lm)
    torch.manual_seed(5)
    projector = build_projector(
        d_in=16, n_embd=64, n_ve=lm.n_ve, kv_dim=lm.kv_dim, hidden=32, audio_ve="learned"
    )
    assert projector.ve_head is not None
    torch.nn.init.normal_(projector.ve_head.weight)  # as after training: no longer zero
    template = choose_template({"kind": "sft"})
    config = run_config(
        projector.config,
        template={"kind": template.kind, "prompt": template.prompt},
        lm=str(root / "lm" / "model_000001.pt"),
    )
    provenance = run_provenance(
        lm,
        fingerprint=split.fingerprint,
        fingerprint_config=split.fingerprint_config,
        longest_seconds=30.0,
    )
    run = runs.create_run(root / "runs" / "r", config, provenance)
    runs.save_projector(run.path, "best", projector)
    runs.save_projector(run.path, "last", projector)
    return World(run.path, encoder, split, sorted((root / "corpus").rglob("*.flac")))


def transcriber(world: World) -> Transcriber:
    return load_transcriber(runs.load_run(world.run), encoder=str(world.encoder))


def test_the_run_s_adapters_are_worn_at_the_scale_that_is_asked_for(
    world: World, tmp_path: Path
) -> None:
    """At none it hears what the LM alone does, at one what the LM does into which they are folded."""
    bare = transcriber(world)
    lora = loud_lora(bare.lm)
    folder = tmp_path / "r"
    shutil.copytree(world.run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["lora"] = {
        "rank": lora.rank, "alpha": lora.alpha, "dropout": 0.0, "everywhere": False,
        "targets": list(lora.targets),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    runs.save_adapters(folder, "best", lora, bare.lm.fingerprint())
    run, encoder = runs.load_run(folder), str(world.encoder)
    waves = [load_audio(path) for path in world.audio]

    def ids(heard: Transcriber) -> list[list[int]]:
        return [text.ids for text in heard(waves, max_new=12)]

    expected = ids(bare)
    assert ids(load_transcriber(run, encoder=encoder, lora_scale=0.0)) == expected
    worn = load_transcriber(run, encoder=encoder)
    assert ids(worn) != expected
    bare.lm = folded(bare.lm, lora)
    assert ids(worn) == ids(bare)
    with pytest.raises(OmniError, match=r"no adapters to scale by 0\.5"):
        load_transcriber(runs.load_run(world.run), encoder=encoder, lora_scale=0.5)


def listen(world: World, *args: object) -> list[str]:
    return [*map(str, args), "--run", str(world.run), "--encoder", str(world.encoder)]


def test_rows_and_token_ids_equal_those_of_training(world: World) -> None:
    heard = transcriber(world)
    samples = {s.meta["id"]: s for s in shards.read([e.path for e in world.split.shards])}
    waves = [load_audio(path) for path in world.audio]
    stored = [samples[path.stem].features for path in world.audio]
    for ours, theirs in zip(heard.features(waves), stored, strict=True):
        np.testing.assert_array_equal(ours, theirs)  # bit for bit what the shard holds
    texts = heard(waves, max_new=12)
    assert sum(len(text.ids) for text in texts) > 20
    for text, features in zip(texts, stored, strict=True):
        # The training row whose transcript is what was heard, laid out by the trainer's own call.
        soft = project(heard.projector, [features], "cpu")
        answer = heard.tok.decode(text.ids)
        assert heard.tok.encode(answer) == text.ids
        row = build_batch(heard.lm, heard.tok, soft, [answer], heard.template)
        prefix = build_batch(heard.lm, heard.tok, soft, [None], heard.template)
        n = prefix.rows.shape[1]
        assert torch.equal(row.rows[:, :n], prefix.rows)
        assert prefix.ve_rows is not None
        assert row.ve_rows is not None
        assert torch.equal(row.ve_rows[:, :n], prefix.ve_rows)
        logits = heard.lm.forward_embeds(row.rows, row.ve_rows, positions=row.positions)
        targets = row.targets[row.positions].tolist()
        assert targets == [*text.ids, heard.template.end(heard.tok)]
        assert logits.argmax(-1).tolist()[: len(text.ids)] == text.ids


def test_the_command_prints_a_line_a_file_and_json(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    files = world.audio[:2]
    assert transcribe(listen(world, *files, "--json", "--max-new", 9)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [str(f) for f in files]
    assert all(len(line["ids"]) <= 9 and line["chunks"] == 1 for line in lines)
    assert lines[0]["n_soft"] == 9  # 35 frames, 4 to a soft token
    assert lines[0]["seconds"] == pytest.approx(0.7)
    assert transcribe(listen(world, files[0], "--max-new", 9)) == 0
    assert capsys.readouterr().out.rstrip("\n") == printable(lines[0]["text"])


def test_what_is_asked_stands_behind_the_audio(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = []
    for more in ([], ["--ask", "What is the last word?"]):
        assert transcribe(listen(world, world.audio[0], "--json", "--max-new", 9, *more)) == 0
        ids.append(json.loads(capsys.readouterr().out)["ids"])
    assert ids[0] != ids[1]
    heard = load_transcriber(runs.load_run(world.run), encoder=str(world.encoder))
    (features,) = heard.features([load_audio(world.audio[0])])
    turn = Turn(" What is the last word?", audio=True)
    soft = project(heard.projector, [features], "cpu")
    batch = build_turns(heard.lm, heard.tok, soft, [[turn]], heard.template)
    stops = {heard.template.end(heard.tok), heard.tok.special("bos")}
    (answer,) = generate(heard.lm, batch.rows, batch.ve_rows, batch.lengths, stops, 9)
    assert ids[1] == answer


def test_stdin_stereo_and_any_rate(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = load_audio(world.audio[0])
    blob = io.BytesIO()
    stereo = np.repeat(np.stack([wave, wave], 1), 3, axis=0)  # 48 kHz
    soundfile.write(blob, stereo, 48_000, format="WAV", subtype="FLOAT")

    class Stdin:
        buffer = io.BytesIO(blob.getvalue())

    monkeypatch.setattr("sys.stdin", Stdin())
    assert transcribe(listen(world, "-", "--json")) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["file"] == "-"
    assert line["seconds"] == pytest.approx(0.7, abs=0.01)


def test_long_audio_goes_in_chunks(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    wave = 0.1 * rng.standard_normal(16_000 * 3).astype(np.float32)
    file = tmp_path / "long.wav"
    soundfile.write(file, wave, 16_000)
    assert transcribe(listen(world, file, "--json", "--chunk-seconds", 1, "--max-new", 5)) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["chunks"] >= 3
    assert line["n_soft"] >= 3 * 16_000 // 320 // 4
    assert len(line["ids"]) <= 5 * line["chunks"]


def test_pieces_are_no_longer_than_the_runs_longest_utterance(world: World) -> None:
    run = runs.load_run(world.run)
    assert transcriber(world).chunk_seconds == 30
    short = runs.Run(run.path, run.config, {**run.provenance, "longest_seconds": 0.5})
    heard = load_transcriber(short, encoder=str(world.encoder))
    wave = np.ones(16_000, np.float32)
    assert heard([wave], max_new=2)[0].chunks >= 2
    assert heard([wave], chunk_seconds=2, max_new=2)[0].chunks == 1


def test_cuts_lie_in_pauses_and_lose_nothing() -> None:
    rng = np.random.default_rng(2)
    wave = rng.standard_normal(16_000 * 70).astype(np.float32)
    pauses = [27, 55]
    for second in pauses:
        wave[second * 16_000 : second * 16_000 + 8_000] = 0
    pieces = cut_at_pauses(wave)
    np.testing.assert_array_equal(np.concatenate(pieces), wave)
    assert max(len(piece) for piece in pieces) <= 30 * 16_000
    cuts = np.cumsum([len(piece) for piece in pieces])[:-1] / 16_000
    assert len(cuts) == 2
    assert all(second < cut < second + 0.5 for second, cut in zip(pauses, cuts, strict=True))
    assert [len(p) for p in cut_at_pauses(wave[: 30 * 16_000])] == [30 * 16_000]


def test_models_of_another_run_are_refused(world: World, tmp_path: Path) -> None:
    run = runs.load_run(world.run)
    other = tiny_encoder(tmp_path / "other", seed=1)
    with pytest.raises(OmniError, match=r"encoder has hash .* the run's features came from"):
        load_transcriber(run, encoder=str(other))
    save_lm(tmp_path / "lm", tiny_lm(seed=9))
    with pytest.raises(OmniError, match=r"LM has hash .* the run was trained with"):
        load_transcriber(run, lm=str(tmp_path / "lm"), encoder=str(world.encoder))
    old = {**run.provenance["fingerprint_config"], "mel": 0}
    changed = runs.Run(run.path, run.config, {**run.provenance, "fingerprint_config": old})
    with pytest.raises(OmniError, match="features have mel 0"):
        load_transcriber(changed, encoder=str(world.encoder))


def test_the_window_is_that_of_the_runs_features(world: World) -> None:
    run = runs.load_run(world.run)

    def with_window(config: object) -> Transcriber:
        features = {**run.provenance["fingerprint_config"], "window": config}
        provenance = {**run.provenance, "fingerprint_config": features}
        changed = runs.Run(run.path, run.config, provenance)
        return load_transcriber(changed, encoder=str(world.encoder))

    wave = load_audio(world.audio[0])
    exact, fitted = transcriber(world), with_window({"fit": 1.0, "step": 1.0})
    assert fitted.window == Window(1.0)
    (ours,) = fitted.features([wave])
    (expected,) = exact.encoder.encode([wave], window=Window(1.0))
    np.testing.assert_array_equal(ours, expected.half().numpy())
    assert np.abs(ours - exact.features([wave])[0]).max() > 0.01
    with pytest.raises(OmniError, match="window '20', which this program does not make"):
        with_window("20")


def test_bad_audio_gives_one_line_and_the_rest_goes_on(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, text, hollow = tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav"
    empty.touch()
    text.write_text("this is no audio")
    soundfile.write(hollow, np.zeros(0, np.float32), 16_000)
    for bad in (empty, text, hollow, tmp_path / "missing.wav"):
        assert transcribe(listen(world, bad)) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert said.err.startswith("error: ")
        assert bad.name in said.err
    assert transcribe(listen(world, empty, world.audio[0], "--json")) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "0 bytes" in lines[0]["error"]
    assert "text" in lines[1]


class Wave(np.ndarray):
    """Samples that can be watched."""


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_recordings_are_held_one_at_a_time(world: World, batch_size: int) -> None:
    heard, rng = transcriber(world), np.random.default_rng(0)
    lengths = [0.3, 2.5, 0.0, 0.4, 0.2, 1.7, 0.3]
    waves = [rng.normal(0, 0.1, max(int(s * 16_000), 800)).astype(np.float32) for s in lengths]
    waves[2][:] = 0  # silent
    alive: list[weakref.ref] = []
    most = 0

    def one_by_one() -> Iterator[np.ndarray]:
        nonlocal most
        for wave in waves:
            own = wave.copy().view(Wave)
            alive.append(weakref.ref(own))
            most = max(most, sum(ref() is not None for ref in alive))
            yield own
            del own

    how = {"chunk_seconds": 1.0, "max_new": 4, "batch_size": batch_size}
    at_once = list(heard.stream(waves, **how))
    assert list(heard.stream(one_by_one(), **how)) == at_once == heard(waves, **how)
    assert most == 1
    assert [text.seconds for text in at_once] == [len(wave) / 16_000 for wave in waves]
    assert (at_once[2].text, at_once[2].n_soft) == ("", 0)


def test_a_file_is_read_when_those_before_it_are_written_down(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What stands on standard output each time a file is read."""
    seen = []

    def load(file: str) -> np.ndarray:
        seen.append(capsys.readouterr().out.count("\n"))
        return load_audio(file)

    monkeypatch.setattr("omni.audio.load_audio", load)
    bad = tmp_path / "bad.wav"
    bad.touch()
    files = [bad, world.audio[0], bad, world.audio[1], world.audio[2]]
    assert transcribe(listen(world, *files, "--json", "--max-new", 3, "--batch-size", 1)) == 1
    seen.append(capsys.readouterr().out.count("\n"))
    assert seen == [0, 0, 2, 0, 2, 1]


def test_silence_and_what_cannot_be_read_stand_beside_the_rest(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silence, absurd, cut = tmp_path / "s.wav", tmp_path / "f.wav", tmp_path / "c.wav"
    soundfile.write(silence, np.zeros(90 * 16_000, np.float32), 16_000)
    soundfile.write(absurd, np.full(8_000, 1e29), 16_000, subtype="FLOAT")
    whole = world.audio[0].read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    latin = tmp_path / os.fsdecode(b"caf\xe9.flac")
    latin.write_bytes(whole)
    files = [silence, absurd, cut, latin, world.audio[0]]
    assert transcribe(listen(world, *files, "--json", "--max-new", 5)) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[0]["text"], lines[0]["ids"], lines[0]["seconds"]) == ("", [], 90)
    assert "1e+29" in lines[1]["error"]
    assert "cut off" in lines[2]["error"]
    assert lines[3]["ids"] == lines[4]["ids"] != []


def test_no_run_is_told_in_one_line(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe([str(world.audio[0]), "--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: no training run found")
