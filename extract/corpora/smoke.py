"""Five sine clips, made on the spot from a committed list: audio for a test of the plumbing.

Must not know about encoders or shards.
"""

import json
from pathlib import Path

import numpy as np

from omni.audio import SAMPLE_RATE
from omni.errors import OmniError
from omni.formats.manifest import Manifest, Utterance, make_manifest, normalize_text

SMOKE_FOLDER = Path(__file__).resolve().parents[2] / "manifests" / "audio_smoke"


def smoke_manifest(folder: Path = SMOKE_FOLDER) -> Manifest:
    """Write the wavs that are missing, and list them.

    Args:
        folder: holds `manifest.jsonl`: a line {id, text, audio, seconds, hertz} for each clip.
    """
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    for row in rows:
        path = folder / row["audio"]
        if not path.is_file():
            _write_sine(path, row["seconds"], row["hertz"])
    utterances = (
        Utterance(
            id=row["id"],
            speaker="sine",
            audio=row["audio"],
            n_samples=round(row["seconds"] * SAMPLE_RATE),
            sample_rate=SAMPLE_RATE,
            text=row["text"],
            text_norm=normalize_text(row["text"]),
        )
        for row in rows
    )
    return make_manifest("smoke", folder, utterances)


def _write_sine(path: Path, seconds: float, hertz: float) -> None:
    import soundfile

    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        soundfile.write(
            temporary, 0.3 * np.sin(2 * np.pi * hertz * time), SAMPLE_RATE, format="WAV"
        )
        temporary.replace(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise OmniError("the smoke clip can't be written", str(path), str(error)) from error
