"""AudioBench-mini: 200 clips to be asked about, in LibriSpeech's layout, in the repository.

Its questions are `manifests/audiobench-mini/mini.parquet`; in some clips nobody speaks. Must not know about
encoders or shards.
"""

from pathlib import Path

from extract.corpora.librispeech import librispeech_manifest
from omni.formats.manifest import Manifest

MINI_ROOT = Path(__file__).resolve().parents[2] / "manifests" / "audiobench-mini"
MINI_SPLIT = "audiobench-mini"


def mini_manifest() -> Manifest:
    """The split."""
    return librispeech_manifest(MINI_ROOT, MINI_SPLIT)
