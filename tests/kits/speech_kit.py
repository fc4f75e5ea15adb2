"""Speech for tests: real LibriVox clips, synthetic LibriSpeech trees, a tiny random encoder."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")  # Debian's pocketsphinx-testdata


def require_librivox() -> list[tuple[Path, str]]:
    """The five clips and their transcripts; skips without them, fails where CI must have them."""
    if not (LIBRIVOX / "fileids").is_file():
        if os.environ.get("CI_REQUIRE_SPEECH") == "1":
            pytest.fail("CI_REQUIRE_SPEECH=1, but pocketsphinx-testdata is not installed")
        pytest.skip("needs Debian's pocketsphinx-testdata")
    lines = (LIBRIVOX / "transcription").read_text().splitlines()
    clips = []
    for line in lines:
        words, _, name = line.partition("(")
        text = words.replace("<s>", "").replace("</s>", "").strip()
        clips.append((LIBRIVOX / f"{name.rstrip(')')}.wav", text))
    return clips


def librivox_tree(root: Path, split: str = "test-clean") -> Path:
    """The clips laid out as LibriSpeech under `root`; returns `root`."""
    chapter = root / "LibriSpeech" / split / "870" / "1"
    chapter.mkdir(parents=True)
    lines = []
    for i, (wav, text) in enumerate(require_librivox()):
        samples, rate = soundfile.read(wav, dtype="int16")
        soundfile.write(chapter / f"870-1-{i:04d}.flac", samples, rate)
        lines.append(f"870-1-{i:04d} {text.upper()}")
    (chapter / "870-1.trans.txt").write_text("\n".join(lines) + "\n")
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text(
        "; a comment\n870 | F | test-clean | 1 | A reader\n"
    )
    return root


def noise_tree(root: Path, n: int, split: str = "dev-clean", seconds: float = 0.5) -> Path:
    """`n` flac files of seeded noise with transcripts, in two speakers; returns `root`."""
    rng = np.random.default_rng(0)
    for speaker in ("11", "12"):
        chapter = root / "LibriSpeech" / split / speaker / "5"
        chapter.mkdir(parents=True)
        lines = []
        for i in range(n // 2 + (n % 2 if speaker == "11" else 0)):
            samples = 0.1 * rng.standard_normal(round(16_000 * seconds) + 37 * i)
            soundfile.write(chapter / f"{speaker}-5-{i:04d}.flac", samples, 16_000)
            lines.append(f"{speaker}-5-{i:04d} WORD {i} OF SPEAKER {speaker}")
        (chapter / f"{speaker}-5.trans.txt").write_text("\n".join(lines) + "\n")
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("11 | F | x | 1 | A\n12 | M | x | 1 | B\n")
    return root


def tiny_encoder(folder: Path, seed: int = 0, layers: int = 2) -> Path:
    """A random Whisper in transformers' layout, small enough for a thousand windows a minute."""
    from safetensors.torch import save_file
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(seed)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=layers,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    model = WhisperModel(config)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous().clone() for key, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "whisper"}))
    return folder


def tiny_whisper(folder: Path, seed: int = 0) -> Path:
    """`tiny_encoder` whose decoder has something to say, and a tokenizer of words `w0` to `w49`."""
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    tiny_encoder(folder, seed)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for key, value in tensors.items():
        if key.startswith("decoder.") and value.dim() == 2:
            # At the usual 0.02 the residual stream drowns what attention adds: any audio, one text.
            value.copy_(0.4 * torch.randn(value.shape, generator=generator))
    save_file(tensors, folder / "model.safetensors")
    specials = ["endoftext", "startoftranscript", "en", "transcribe", "notimestamps"]
    words = [f"w{i}" for i in range(50)] + [f"<|{name}|>" for name in specials]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
