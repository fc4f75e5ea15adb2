"""The sound of single utterances, as the corpus has it, small enough to stand in a page.

Shards hold features and no sound: it is found by the split's manifest. What can't be found or read is
left out, for a page is no reason to fail. Must not know about pages.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omni.audio import SAMPLE_RATE, load_audio
from omni.errors import OmniError
from omni.formats.manifest import Utterance, read_manifest
from omni.formats.shards import Sample

LONGEST = 20.0  # seconds of a clip: what is longer is cut


def clips(samples: Mapping[str, Sample], manifests: str | Path) -> dict[str, bytes]:
    """FLAC (mono, 16 kHz, 16 bit) by id, of the utterances whose sound lies on this machine.

    Equal sound gives equal bytes.

    Args:
        manifests: folder that holds `<split>.parquet`, as omni-extract writes them.
    """
    found: dict[str, bytes] = {}
    by_split: dict[str, set[str]] = {}
    for key, sample in samples.items():
        by_split.setdefault(str(sample.meta["split"]), set()).add(key)
    for split, ids in sorted(by_split.items()):
        for utterance, path in _listed(Path(manifests) / f"{split}.parquet", ids):
            try:
                wave = load_audio(path)
            except OmniError:
                continue
            found[utterance.id] = _flac(_stretch(wave, utterance))
    return found


def _listed(path: Path, ids: set[str]) -> list[tuple[Utterance, Path]]:
    """Rows of a manifest for these ids, and their files; none if there is no manifest."""
    try:
        manifest = read_manifest(path)
    except OmniError:
        return []
    return [(u, manifest.audio_path(u)) for u in manifest.utterances if u.id in ids and u.audio]


def _stretch(wave: np.ndarray, utterance: Utterance) -> np.ndarray:
    begin = round(utterance.start * SAMPLE_RATE)
    seconds = min(utterance.length or LONGEST, LONGEST)
    return wave[begin : begin + round(seconds * SAMPLE_RATE)]


def _flac(wave: np.ndarray) -> bytes:
    import soundfile  # here: the rest of the report decodes nothing

    out = io.BytesIO()
    soundfile.write(out, np.clip(wave, -1, 1), SAMPLE_RATE, "PCM_16", format="FLAC")
    return out.getvalue()
