"""Fitted windows: what they cost in exactness, that neighbours change nothing, that they never mix.

.venv/bin/python -m pytest tests/omni/whisper/test_window.py
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speech_kit import noise_tree, require_librivox, tiny_encoder

from cli.extract import main
from extract.batches import WAITING_BATCHES, Batches
from omni.audio import load_audio
from omni.errors import OmniError
from omni.formats.shards import read
from omni.formats.splits import open_split
from omni.whisper.encoder import WhisperEncoder, load_encoder
from omni.whisper.mel import WINDOW_FRAMES, log_mel
from omni.whisper.weights import WHEEL_MODEL
from omni.whisper.window import EXACT, FULL_FRAMES, Window, make_window, window_from_config

FIT = Window(2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> WhisperEncoder:
    return load_encoder(str(folder))


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


# ---- the rule ---------------------------------------------------------------------------------


@given(st.integers(1, FULL_FRAMES), st.floats(0, 30))
def test_a_fitted_window_holds_speech_and_margin(count: int, margin: float) -> None:
    window = Window(margin)
    length = window.length(count)
    assert length == FULL_FRAMES or (length % 50 == 0 and length >= count + 50 * margin)
    assert count <= window.most_kept(length) <= length <= FULL_FRAMES
    assert window_from_config(window.config()) == window


def test_the_rule_by_example() -> None:
    assert EXACT.length(3) == FULL_FRAMES
    assert EXACT.config() == "30"
    assert FIT.length(1) == 150
    assert FIT.length(50) == 150
    assert FIT.length(51) == 200
    assert FIT.length(1401) == FULL_FRAMES
    assert FIT.config() == {"fit": 2.0, "step": 1.0}


def test_options_become_a_window_or_one_line() -> None:
    assert make_window("30") == EXACT
    assert make_window("fit") == FIT
    assert make_window("fit", 0) == Window(0)
    for name, margin in (("30", 1.0), ("fit", -1.0), ("fit", float("nan")), ("20", None)):
        with pytest.raises(OmniError, match=r"margin|window"):
            make_window(name, margin)


@pytest.mark.parametrize("config", [None, "20", {}, {"fit": 2.0}, {"fit": 2.0, "step": 0.5}])
def test_a_window_that_we_do_not_make_is_refused(config: object) -> None:
    with pytest.raises(OmniError, match="does not make"):
        window_from_config(config)


# ---- the encoder ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 16_000, 40_000, 64_000])
def test_a_short_log_mel_is_the_beginning_of_the_long_one(n: int) -> None:
    wave = torch.from_numpy(noise(n))[None]
    short, whole = log_mel(wave, frames=600), log_mel(wave)
    assert (short.shape[2], whole.shape[2]) == (600, WINDOW_FRAMES)
    assert torch.allclose(short, whole[:, :, :600], atol=1e-6)


def test_features_of_a_fitted_window_equal_the_layers_walked_whole(tiny: WhisperEncoder) -> None:
    """The last layer's pruning is exact here too: transformers' own layers on the same window."""
    wave = noise(30_000)
    ours = tiny.encode([wave], window=FIT)[0]
    length = FIT.length(len(ours))
    assert (len(ours), length) == (94, 200)
    with torch.no_grad():
        mel = log_mel(torch.from_numpy(wave)[None], 80, 2 * length)
        module, gelu = tiny.module, torch.nn.functional.gelu
        x = gelu(module.conv2(gelu(module.conv1(mel)))).transpose(1, 2)
        x = x + module.embed_positions.weight[:length]
        for layer in module.layers:
            out = layer(x, attention_mask=None)
            x = out[0] if isinstance(out, tuple) else out
        theirs = module.layer_norm(x)[0, :94]
    assert (ours - theirs).norm() / theirs.norm() < 1e-5


def test_neighbours_in_a_batch_change_nothing(tiny: WhisperEncoder) -> None:
    """Whatever else is encoded along, of the same window's length or another."""
    wave = noise(30_000)
    others = [noise(n, seed) for seed, n in enumerate((2000, 31_900, 16_100, 500_000))]
    pair = tiny.encode([wave, others[1]], window=FIT)[0]
    crowd = tiny.encode([others[0], wave, noise(18_000), *others[2:]], window=FIT)[1]
    assert torch.equal(pair, crowd)
    assert torch.allclose(pair, tiny.encode([wave], window=FIT)[0], atol=1e-5)


def test_a_long_recording_keeps_its_order(tiny: WhisperEncoder) -> None:
    wave = noise(480_000 + 20_000)
    both = tiny.encode([wave], [0, 2], window=FIT)[0]
    parts = tiny.encode([wave[:480_000], wave[480_000:]], [0, 2], window=FIT)
    assert torch.allclose(both, torch.cat(parts, dim=1), atol=1e-5)


def test_what_a_fitted_window_costs_on_real_speech() -> None:
    """Whisper-base hears the silence: far from equal at 2 s, and equal again at 30."""
    encoder = load_encoder(WHEEL_MODEL)
    wave = min((load_audio(path) for path, _ in require_librivox()), key=len)
    exact = encoder.encode([wave])[0]

    def error(margin: float) -> float:
        return float((encoder.encode([wave], window=Window(margin))[0] - exact).norm())

    assert 0.02 < error(2.0) / exact.norm() < 0.4
    assert error(30.0) / exact.norm() < 1e-4


# ---- batches ----------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), max_size=200), st.integers(1, 4))
def test_every_item_is_in_one_batch_of_its_length(lengths: list[int], size: int) -> None:
    batches: Batches[int] = Batches(size)
    made, waiting = [], 0
    for i, length in enumerate(lengths):
        batch = batches.add(length, i)
        waiting += 1 - len(batch or ())
        assert waiting <= WAITING_BATCHES * size
        made += [batch] if batch else []
    made += batches.rest()
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= size and batch == sorted(batch) for batch in made)
    assert all(len({lengths[i] for i in batch}) == 1 for batch in made)
    assert list(batches.rest()) == []


def test_the_oldest_does_not_wait_for_ever() -> None:
    batches: Batches[str] = Batches(2)
    assert batches.add(0, "first") is None
    taken = [batches.add(length, "later") for length in range(1, 2 * WAITING_BATCHES + 1)]
    assert taken[:-1] == [None] * (2 * WAITING_BATCHES - 1)
    assert taken[-1] == ["first"]


# ---- extraction -------------------------------------------------------------------------------


def command(corpus: Path, encoder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--root", str(corpus), "--split", "dev-clean", "--encoder", str(encoder)),
        *("--out", str(out), "--manifests", str(out / "manifests"), "--shard-size", "6"),
        *("--device", "cpu", "--threads", "1", *more),
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Fifteen clips whose windows have two lengths."""
    return noise_tree(tmp_path_factory.mktemp("corpus"), 15, seconds=0.995)


@pytest.mark.parametrize("batch", ["1", "3"])
def test_shards_hold_what_encode_gives_in_the_plans_order(
    corpus: Path, folder: Path, tiny: WhisperEncoder, tmp_path: Path, batch: str
) -> None:
    args = ["--window", "fit", "--margin", "2", "--batch-size", batch]
    assert main(command(corpus, folder, tmp_path, *args)) == 0
    split = open_split(tmp_path / "dev-clean")
    assert split.fingerprint_config["window"] == FIT.config()
    assert [entry.n for entry in split.shards] == [6, 6, 3]
    lengths = set()
    for sample in read(entry.path for entry in split.shards):
        speaker, chapter, _ = sample.key.split("-")
        tree = corpus / "LibriSpeech" / "dev-clean" / speaker / chapter
        wave = load_audio(tree / f"{sample.key}.flac")
        ours = tiny.encode([wave], window=FIT)[0].half().numpy()
        lengths.add(FIT.length(len(ours)))
        assert np.allclose(sample.features, ours, atol=2e-3)
    assert len(lengths) == 2
    tars = {path.name: path.read_bytes() for path in (tmp_path / "dev-clean").glob("*.tar")}
    (tmp_path / "dev-clean" / "dev-clean-000001.json").unlink()
    assert main(command(corpus, folder, tmp_path, *args)) == 0
    assert tars == {path.name: path.read_bytes() for path in (tmp_path / "dev-clean").glob("*.tar")}


def test_windows_never_mix(corpus: Path, folder: Path, tmp_path: Path, capsys) -> None:
    assert main(command(corpus, folder, tmp_path, "--limit", "2")) == 0
    assert main(command(corpus, folder, tmp_path, "--limit", "2", "--window", "fit")) == 1
    assert "window 30 there, {'fit': 2.0, 'step': 1.0} now" in capsys.readouterr().err
    assert (
        main(command(corpus, folder, tmp_path, "--limit", "2", "--window", "fit", "--overwrite"))
        == 0
    )
    args = ["--limit", "2", "--window", "fit", "--margin", "3"]
    assert main(command(corpus, folder, tmp_path, *args)) == 1
    assert "{'fit': 2.0, 'step': 1.0} there" in capsys.readouterr().err
    assert main(command(corpus, folder, tmp_path, "--margin", "3")) == 1
    assert "has no margin" in capsys.readouterr().err
