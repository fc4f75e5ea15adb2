"""Extraction against its peers, on the same clips in one run: seconds and ratios.

    .venv/bin/python -m bench.extract                 16 clips of LibriSpeech's lengths, 3 rounds
    .venv/bin/python -m bench.extract --clips 64 --batch-size 64     on a GPU
    .venv/bin/python -m bench.extract --no-encoder    what the host carries (bench/no_encoder.py)

Peers: the plain transformers loop (feature extractor, encoder at batch 1, np.save), openai-whisper's
encoder, CTranslate2 in float32 (the engine of faster-whisper). The last two are no dependency of this
project: `pip install openai-whisper ctranslate2` first, else they are left out. Rounds interleave and
the best of each counts, so that a busy machine harms none more than another; CPU time beside wall time
for the same reason.
"""

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from bench.no_encoder import compare
from extract.corpora.folder import folder_manifest
from extract.run import Settings, extract_split
from omni.audio import load_audio
from omni.whisper.encoder import WhisperEncoder, frame_count, load_encoder
from omni.whisper.weights import WHEEL_MODEL, WHEEL_PARTS, find_weights, wheel_file

# Seconds; mean 12.4, as train-clean-100 has them.
LENGTHS = (
    2.3,
    14.1,
    15.6,
    16.0,
    4.2,
    13.5,
    15.2,
    8.1,
    14.7,
    15.9,
    11.9,
    16.3,
    14.3,
    6.8,
    15.0,
    14.5,
)

Peer = Callable[[list[Path], Path], None]


def main() -> int:
    """Run every system `--rounds` times and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=int, help="(default: 16; 512 with --no-encoder)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="of ours (default: 2 on a CPU, 64 on a GPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-encoder", action="store_true", help="the pipeline alone, by stage")
    parser.add_argument("--against", type=Path, help="with --no-encoder: another checkout, in turn")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="with --no-encoder")
    args = parser.parse_args()
    if args.no_encoder:
        compare(args.clips or 512, args.rounds, args.workers, args.device, args.against)
        return 0
    args.clips = args.clips or 16
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        clips = write_clips(root / "clips", args.clips)
        systems = {
            "ours, omni-extract": ours(args.device, args.batch_size, root / "clips"),
            "transformers loop": transformers_loop(args.device),
            "openai-whisper": openai_whisper(args.device),
            "CTranslate2 float32": ctranslate2_encoder(args.device, root / "ct2"),
        }
        best = race({k: v for k, v in systems.items() if v is not None}, clips, root, args.rounds)
    audio = sum(LENGTHS[i % len(LENGTHS)] for i in range(args.clips))
    print(
        f"{args.clips} clips, {audio:.0f} s of audio, {args.device}, {torch.get_num_threads()} threads"
    )
    base = best["ours, omni-extract"]
    for name, (seconds, cpu) in best.items():
        print(
            f"{name:<22} {seconds:7.2f} s  {cpu:7.2f} CPU s  {audio / seconds:7.1f} x real time"
            f"  ours: {seconds / base[0]:.2f} x as fast, {cpu / base[1]:.2f} x in CPU time"
        )
    for name in systems.keys() - best.keys():
        print(f"{name:<22} not installed")
    return 0


def race(
    systems: dict[str, Peer], clips: list[Path], root: Path, rounds: int
) -> dict[str, tuple[float, float]]:
    """Best wall time and best CPU time of each system; one clip first, to warm up."""
    for name, system in systems.items():
        system(clips[:1], root / f"warm {name}")
    best = dict.fromkeys(systems, (float("inf"), float("inf")))
    for r in range(rounds):
        for name, system in systems.items():
            wall, cpu = time.perf_counter(), time.process_time()
            system(clips, root / f"{r} {name}")
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
    return best


def write_clips(folder: Path, n: int) -> list[Path]:
    """FLACs of noise: the encoder's speed does not depend on what is said."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        samples = 0.1 * rng.standard_normal(round(LENGTHS[i % len(LENGTHS)] * 16_000))
        soundfile.write(folder / f"{i:04d}.flac", samples, 16_000)
    return sorted(folder.iterdir())


def ours(device: str, batch_size: int | None, folder: Path) -> Peer:
    """The whole command: manifest, plan, decode, mel, encode, trim, hash, shards."""
    encoder = load_encoder(WHEEL_MODEL, device)
    on_gpu = device.startswith("cuda")

    def run(clips: list[Path], out: Path) -> None:
        settings = Settings(
            out=out,
            layers="last",
            shard_size=512,
            limit=len(clips),
            batch_size=batch_size or (64 if on_gpu else 2),
            decode_workers=16 if on_gpu else 2,
            max_failures=0,
            overwrite=False,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            extract_split(folder_manifest(folder, "bench", "none"), encoder, settings)

    return run


def transformers_loop(device: str) -> Peer:
    """What one writes without us: a clip at a time, np.save of the valid frames."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    weights = find_weights(WHEEL_MODEL, decoder=True)
    model = WhisperModel(WhisperConfig(**weights.config))
    model.load_state_dict({k: v.float() for k, v in weights.tensors.items()})
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    encoder = model.encoder.to(device, dtype).eval()
    extractor = WhisperFeatureExtractor()

    def run(clips: list[Path], out: Path) -> None:
        out.mkdir()
        for clip in clips:
            wave, rate = soundfile.read(clip, dtype="float32")
            mel = extractor(wave, sampling_rate=rate, return_tensors="pt").input_features
            with torch.no_grad():
                hidden = encoder(mel.to(device, dtype)).last_hidden_state[
                    0, : frame_count(len(wave))
                ]
            np.save(out / f"{clip.stem}.npy", hidden.half().cpu().numpy())

    return run


def openai_whisper(device: str) -> Peer | None:
    """The encoder of Whisper's authors, the same weights."""
    try:
        from whisper.audio import log_mel_spectrogram, pad_or_trim
        from whisper.model import AudioEncoder
    except ImportError:
        return None
    encoder = AudioEncoder(80, 1500, 512, 8, 6)
    encoder.load_state_dict(to_openai(load_encoder(WHEEL_MODEL)))
    encoder = encoder.to(device).eval()

    def run(clips: list[Path], out: Path) -> None:
        out.mkdir()
        for clip in clips:
            wave = load_audio(clip)
            mel = log_mel_spectrogram(pad_or_trim(wave)).to(device)
            with torch.no_grad():
                hidden = encoder(mel[None])[0, : frame_count(len(wave))]
            np.save(out / f"{clip.stem}.npy", hidden.half().cpu().numpy())

    return run


def to_openai(encoder: WhisperEncoder) -> dict[str, torch.Tensor]:
    """transformers' names to openai-whisper's."""
    renames = (
        ("layers.", "blocks."),
        ("self_attn_layer_norm", "attn_ln"),
        ("self_attn.q_proj", "attn.query"),
        ("self_attn.k_proj", "attn.key"),
        ("self_attn.v_proj", "attn.value"),
        ("self_attn.out_proj", "attn.out"),
        ("final_layer_norm", "mlp_ln"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.2"),
        ("embed_positions.weight", "positional_embedding"),
    )
    out = {}
    for key, value in encoder.module.state_dict().items():
        for old, new in renames:
            key = key.replace(old, new)
        out["ln_post" + key.removeprefix("layer_norm") if key.startswith("layer_norm") else key] = (
            value
        )
    return out


def ctranslate2_encoder(device: str, folder: Path) -> Peer | None:
    """CTranslate2's encoder at batch 1, fed with transformers' log-mel as faster-whisper does."""
    parts = [wheel_file(file) for _, file in WHEEL_PARTS]
    if any(part is None for part in parts):
        return None
    try:
        import ctranslate2
    except ImportError:
        return None
    from transformers import WhisperFeatureExtractor

    folder.mkdir()
    (folder / "model.bin").write_bytes(b"".join(part.read_bytes() for part in parts if part))
    for name in ("config.json", "vocabulary.json", "tokenizer.json"):
        source = wheel_file(name)
        assert source is not None
        (folder / name).write_bytes(source.read_bytes())
    model = ctranslate2.models.Whisper(
        str(folder), device=device, compute_type="float32", intra_threads=torch.get_num_threads()
    )
    extractor = WhisperFeatureExtractor()

    def run(clips: list[Path], out: Path) -> None:
        out.mkdir()
        for clip in clips:
            wave = load_audio(clip)
            mel = extractor(wave, sampling_rate=16_000, return_tensors="np").input_features
            view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel))
            hidden = np.asarray(model.encode(view, to_cpu=True))[0, : frame_count(len(wave))]
            np.save(out / f"{clip.stem}.npy", hidden.astype(np.float16))

    return run


if __name__ == "__main__":
    raise SystemExit(main())
