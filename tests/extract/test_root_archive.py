"""--root with nothing but OpenSLR's archive in it.

.venv/bin/python -m pytest tests/extract/test_root_archive.py
"""

import shutil
import tarfile
from pathlib import Path

import pytest
from speech_kit import noise_tree

from extract.corpora.choose import Source, find_manifests
from extract.corpora.librispeech import librispeech_manifest
from omni.errors import OmniError


def manifest_ids(root: Path) -> list[str]:
    return [u.id for u in find_manifests(Source(split="dev-clean", root=root))[0].utterances]


def test_the_archive_is_unpacked_once(tmp_path: Path) -> None:
    tree = noise_tree(tmp_path / "tree", 4)
    expected = [u.id for u in librispeech_manifest(tree, "dev-clean").utterances]
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "dev-clean.tar.gz", "w:gz") as tar:
        tar.add(tree / "LibriSpeech", "LibriSpeech")
    assert manifest_ids(root) == expected
    (root / "dev-clean.tar.gz").write_bytes(b"looked at no more")
    assert manifest_ids(root) == expected
    shutil.rmtree(root / "LibriSpeech")
    with pytest.raises(OmniError, match="can't be unpacked"):
        manifest_ids(root)
    assert sorted(path.name for path in root.iterdir()) == ["dev-clean.tar.gz"]


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev-clean.tar.gz").write_bytes(b"")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OmniError, match="beside itself \\(Permission denied\\)"):
        manifest_ids(tmp_path)
