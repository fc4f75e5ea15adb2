"""What a corpus's voices are like: how well Whisper hears each, and the pitch and pace of each label.

    python scripts/measure_voices.py manifests/demo/LibriSpeech [--clips 12] [--window fit]

Prints tables in Markdown. A voice that Whisper's own decoder mishears teaches a projector to mishear.
Must not know how a corpus was made.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from praat import pitch
from synthesis import RATE, SILENCE, Wave, read_clip

from extract.corpora.librispeech import librispeech_manifest
from omni.evaluation.cascade import spell
from omni.evaluation.scoring import score
from omni.formats.manifest import Utterance
from omni.whisper.decoder import load_decoder
from omni.whisper.encoder import DEFAULT_ENCODER, load_encoder
from omni.whisper.window import make_window


class Measured(NamedTuple):
    """One clip. errors, words: of Whisper's transcript. pitch: Hz, median; pace: words a second."""

    row: Utterance
    split: str
    errors: int
    words: int
    pitch: float
    pace: float


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description="Measure the voices of a corpus.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("root", type=Path, help="a LibriSpeech folder")
    parser.add_argument(
        "--clips", type=int, default=0, help="of a speaker and split at most; 0: all"
    )
    parser.add_argument("--window", default="30", choices=["30", "fit"], help="of the encoder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(args.root, args.clips, args.window)
    names = speaker_names(args.root / "SPEAKERS.TXT")
    print(table("voice", found, lambda m: f"{m.split} | {names.get(m.row.speaker, m.row.speaker)}"))
    print(table("sound behind", found, lambda m: f"{m.split} | {m.row.sound or 'none'}"))
    print(table("pace", found, lambda m: f"{m.row.sex} | {m.row.pace}"))
    print(table("pitch", found, lambda m: f"{m.row.sex} | {m.row.pitch}"))
    return 0


def measure(root: Path, clips: int, window: str) -> list[Measured]:
    """Every clip with a transcript, or so many of each speaker and split."""
    encoder = load_encoder()
    decoder = load_decoder(DEFAULT_ENCODER, {"encoder": encoder.hash, "layers": "last"})
    out = []
    for split in sorted(path.name for path in root.iterdir() if path.is_dir()):
        taken: defaultdict[str, int] = defaultdict(int)
        for row in librispeech_manifest(root, split, "eval").utterances:
            taken[row.speaker] += 1
            if not row.text_norm or (clips and taken[row.speaker] > clips):
                continue
            wave = read_clip(root / row.audio)
            frames = encoder.encode([wave], window=make_window(window))[0]
            heard = decoder.transcribe([frames.float().numpy()])[0]
            heard = spell(heard, set("abcdefghijklmnopqrstuvwxyz "))
            _, errors, _ = score(row.text_norm, heard)
            said = row.text_norm.split()
            if errors.total:
                print(f"{row.id}: {row.text_norm} / {heard}", file=sys.stderr)
            pace = len(said) / speech_seconds(wave)
            out.append(Measured(row, split, errors.total, len(said), pitch(wave, RATE), pace))
    return out


def table(what: str, found: Sequence[Measured], group: Callable[[Measured], str]) -> str:
    """Markdown: a line for each group."""
    groups: defaultdict[str, list[Measured]] = defaultdict(list)
    for one in found:
        groups[group(one)].append(one)
    lines = [
        f"| of | {what} | clips | WER % | pitch, Hz | words a second |",
        "|---|---|---|---|---|---|",
    ]
    for name, mine in sorted(groups.items()):
        wer = 100 * sum(m.errors for m in mine) / sum(m.words for m in mine)
        hertz, pace = _spread([m.pitch for m in mine]), _spread([m.pace for m in mine], 1)
        lines.append(f"| {name} | {len(mine)} | {wer:.1f} | {hertz} | {pace} |")
    return "\n".join(lines) + "\n"


def speech_seconds(wave: Wave) -> float:
    """From the first to the last that is louder than silence."""
    loud = np.flatnonzero(np.abs(wave) > 3 * SILENCE * np.abs(wave).max())
    return float(loud[-1] - loud[0] + 1) / RATE


def speaker_names(path: Path) -> dict[str, str]:
    """Engine and voice by speaker."""
    rows = (line.split("|") for line in path.read_text().splitlines() if not line.startswith(";"))
    return {row[0].strip(): row[4].strip() for row in rows}


def _spread(values: Iterable[float], digits: int = 0) -> str:
    """Median, and the fifth that is lowest and highest."""
    low, middle, high = np.nanpercentile(list(values), (10, 50, 90))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
