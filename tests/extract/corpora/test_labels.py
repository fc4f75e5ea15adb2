"""LABELS.TSV: how utterances are spoken, from a tree to a manifest; manifests without labels are read too.

.venv/bin/python -m pytest tests/extract/corpora/test_labels.py
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from speech_kit import noise_tree

from extract.corpora.librispeech import librispeech_manifest
from omni.errors import OmniError
from omni.formats.manifest import LABELS, read_manifest, write_manifest

HEAD = "\t".join(["id", *LABELS])


def _tree(folder: Path, table: str) -> Path:
    root = noise_tree(folder, 4)
    (root / "LibriSpeech" / "LABELS.TSV").write_text(table)
    return root


def test_labels_stand_in_the_manifest_and_where_there_are_none_nothing(tmp_path: Path) -> None:
    root = _tree(tmp_path, f"{HEAD}\n11-5-0000\tslow\thigh\tGB\thum\n12-5-0001\t\t\tUS\t\n")
    manifest = librispeech_manifest(root, "dev-clean")
    path = tmp_path / "dev-clean.parquet"
    write_manifest(manifest, path)
    again = read_manifest(path)
    assert again == manifest
    found = {u.id: tuple(getattr(u, name) for name in LABELS) for u in again.utterances}
    assert found == {
        "11-5-0000": ("slow", "high", "GB", "hum"),
        "11-5-0001": ("", "", "", ""),
        "12-5-0000": ("", "", "", ""),
        "12-5-0001": ("", "", "US", ""),
    }


def test_a_sound_alone_lacks_no_transcript_and_a_voice_without_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _tree(tmp_path, f"{HEAD}\n11-5-0000\t\t\t\thum\n11-5-0001\tslow\t\t\thum\n")
    (root / "LibriSpeech/dev-clean/11/5/11-5.trans.txt").unlink()
    found = {u.id: u.is_complete for u in librispeech_manifest(root, "dev-clean").utterances}
    assert found == {"11-5-0000": True, "11-5-0001": False, "12-5-0000": True, "12-5-0001": True}
    assert "1 of 4 utterances" in capsys.readouterr().err


def test_a_manifest_made_before_there_were_labels_is_read(tmp_path: Path) -> None:
    manifest = librispeech_manifest(noise_tree(tmp_path, 4), "dev-clean")
    path = tmp_path / "old.parquet"
    write_manifest(manifest, path)
    pq.write_table(pq.read_table(path).drop_columns(list(LABELS)), path)
    assert read_manifest(path) == manifest
    pq.write_table(pq.read_table(path).drop_columns(["sex"]), path)
    with pytest.raises(OmniError, match="lacks columns sex"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("id\tpace\n11-5-0000\tslow\n", "its head is another"),
        (f"{HEAD}\n11-5-0000\tslow\n", "line 2 has 1 labels"),
        (f"{HEAD}\n11-5-0000\ta\tb\tc\td\n11-5-0000\ta\tb\tc\td\n", "line 3"),
        ("", "its head is another"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(OmniError, match=says) as caught:
        librispeech_manifest(_tree(tmp_path, table), "dev-clean")
    assert "LABELS.TSV" in str(caught.value)
