"""The embedded demo corpus: 500 synthetic utterances in LibriSpeech's layout, in the repository.

Must not know about encoders or shards.
"""

from pathlib import Path

from extract.corpora.librispeech import librispeech_manifest
from omni.formats.manifest import Manifest

DEMO_ROOT = Path(__file__).resolve().parents[2] / "manifests" / "demo"
DEMO_SPLITS = ("demo-train", "demo-heldout", "demo-heldout-voice")


def demo_manifest(split: str) -> Manifest:
    """One of the three demo splits."""
    return librispeech_manifest(DEMO_ROOT, split)
