"""AudioBench-mini: 200 clips to be asked about, in LibriSpeech's layout, in the repository.

Its questions are `manifests/audiobench-mini/mini.parquet`. Must not know about encoders or shards.
"""

from dataclasses import replace
from pathlib import Path

from extract.corpora.librispeech import librispeech_manifest
from omni.formats.manifest import Manifest, Problem

MINI_ROOT = Path(__file__).resolve().parents[2] / "manifests" / "audiobench-mini"
MINI_SPLIT = "audiobench-mini"


def mini_manifest() -> Manifest:
    """The split. A clip that is labelled with a sound and has no transcript is one in which nobody
    speaks: nothing of it is missing."""
    found = librispeech_manifest(MINI_ROOT, MINI_SPLIT)
    rows = (
        replace(row, problem=Problem.NONE, note="")
        if row.problem is Problem.NO_TEXT and row.sound
        else row
        for row in found.utterances
    )
    return replace(found, utterances=tuple(rows))
