"""Folders of tiny recordings, and manifests of them boiled down to what a test compares."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from extract.corpora.folder import folder_manifest
from omni.formats.manifest import Manifest

RATE = 16_000


def record(path: Path, seconds: float = 0.1, rate: int = RATE, channels: int = 1) -> Path:
    """A ramp: every sample tells where in the file it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.arange(round(seconds * rate), dtype=np.int16)
    kind = {
        ".flac": "FLAC",
        ".mp3": "MP3",
        ".ogg": "OGG",
        ".w64": "W64",
        ".au": "AU",
        ".caf": "CAF",
    }
    form = kind.get(path.suffix.lower(), "AIFF" if ".ai" in path.suffix.lower() else "WAV")
    soundfile.write(path, np.repeat(ramp[:, None], channels, axis=1), rate, format=form)
    return path


def recordings(folder: Path, *names: str) -> Path:
    """A folder with recordings of these names."""
    for name in names:
        record(folder / name)
    return folder


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def listing(folder: Path, transcripts: Path | str = "auto") -> dict[str, str]:
    """Text of each utterance that is complete, or what is wrong with it in angle brackets."""
    return told(folder_manifest(folder, "talks", str(transcripts)))


def told(manifest: Manifest) -> dict[str, str]:
    return {u.id: f"<{u.note}>" if u.problem else u.text for u in manifest.utterances}
