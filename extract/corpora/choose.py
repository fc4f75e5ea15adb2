"""Which corpus the options mean. Must not know how any of them is laid out."""

from dataclasses import dataclass
from pathlib import Path

from extract.corpora.demo import DEMO_SPLITS, demo_manifest
from extract.corpora.folder import folder_manifest
from extract.corpora.librispeech import librispeech_manifest
from extract.corpora.smoke import smoke_manifest
from omni.errors import OmniError
from omni.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Source:
    """Where speech comes from; at most one of root, audio_dir and manifest."""

    split: str
    root: Path | None = None  # an unpacked LibriSpeech tree
    audio_dir: Path | None = None  # any folder of audio
    transcripts: str = "auto"
    role: str | None = None
    manifest: Path | None = None  # a manifest parquet


def find_manifests(source: Source) -> list[Manifest]:
    """The manifests of a source: three for the demo, else one.

    Raises:
        OmniError: two sources at once, or none for a split that is not embedded.
    """
    given = [p for p in (source.root, source.audio_dir, source.manifest) if p is not None]
    if len(given) > 1:
        raise OmniError("--root, --audio-dir and --manifest exclude one another")
    if source.manifest is not None:
        return [read_manifest(source.manifest)]
    if source.audio_dir is not None:
        return [folder_manifest(source.audio_dir, source.split, source.transcripts, source.role)]
    if source.root is not None:
        return [librispeech_manifest(source.root, source.split)]
    if source.split == "demo":
        return [demo_manifest(split) for split in DEMO_SPLITS]
    if source.split in DEMO_SPLITS:
        return [demo_manifest(source.split)]
    if source.split == "smoke":
        return [smoke_manifest()]
    raise OmniError(
        "where is the corpus?",
        f"--split {source.split}",
        "give --root, the folder of the unpacked LibriSpeech tree",
    )
