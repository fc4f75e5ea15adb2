"""The download against a server that drops connections, serves wrong bytes, answers Range or not.

.venv/bin/python -m pytest tests/extract/test_download.py
"""

import contextlib
import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from speech_kit import noise_tree

from extract.corpora import hub, openslr
from extract.corpora.choose import Source, fetch, find_manifests
from extract.corpora.librispeech import PUBLISHED, librispeech_manifest
from omni.errors import OmniError
from omni.formats import stores


class Server:
    """Serves `data`; `drop_after` bytes it closes the connection, `drops` times."""

    def __init__(self) -> None:
        self.data = b""
        self.ranges = True
        self.drops = 0
        self.drop_after = 0
        self.broken = False
        self.drip = 0.0  # seconds between two bytes
        self.asked: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if self.broken:
            request.send_error(404)
            return
        if start >= len(self.data):
            request.send_error(416)
            return
        body = self.data[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if start:
            end = len(self.data) - 1
            request.send_header("Content-Range", f"bytes {start}-{end}/{len(self.data)}")
        request.end_headers()
        if self.drops:
            self.drops -= 1
            body = body[: self.drop_after]
        if self.drip:
            with contextlib.suppress(OSError):  # whoever asked has gone
                for i in range(len(body)):
                    request.wfile.write(body[i : i + 1])
                    time.sleep(self.drip)
            return
        request.wfile.write(body)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch) -> bytes:
    """A small dev-clean.tar.gz whose md5 is the published one for this test."""
    tree = noise_tree(tmp_path / "origin", 6)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tree / "LibriSpeech", "LibriSpeech")
    data = buffer.getvalue()
    publish(monkeypatch, data)
    return data


def publish(monkeypatch, data: bytes) -> None:
    md5 = hashlib.md5(data).hexdigest()
    monkeypatch.setitem(PUBLISHED, "dev-clean", replace(PUBLISHED["dev-clean"], md5=md5))


def get(server: Server, root: Path) -> Path:
    return openslr.fetch_split("dev.clean", root, [server.url], pause_seconds=0)


def test_download_unpack_and_read(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data = archive
    root = get(server, tmp_path / "data")
    assert len(librispeech_manifest(root, "dev-clean").utterances) == 6
    assert (root / "LibriSpeech" / "SPEAKERS.TXT").is_file()
    assert sorted(path.name for path in root.iterdir()) == ["LibriSpeech", "dev-clean.tar.gz"]
    get(server, root)
    assert server.asked == [None], "what is there is not asked for again"


def test_dropped_connections_are_continued(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, server.drops, server.drop_after = archive, 3, 5_000
    get(server, tmp_path / "data")
    assert server.asked == [None, "bytes=5000-", "bytes=10000-", "bytes=15000-"]


def test_a_part_left_by_a_kill_is_continued(server: Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev-clean.tar.gz.part").write_bytes(archive[:7_000])
    server.data = archive
    get(server, tmp_path / "data")
    assert server.asked == ["bytes=7000-"]


def test_a_complete_part_only_needs_its_md5(server: Server, archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dev-clean.tar.gz.part").write_bytes(archive)
    server.data = archive
    get(server, tmp_path / "data")
    assert server.asked == [f"bytes={len(archive)}-"]


def test_a_server_without_ranges_starts_anew(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    server.data, server.ranges, server.drops, server.drop_after = archive, False, 1, 5_000
    root = get(server, tmp_path / "data")
    assert (root / "dev-clean.tar.gz").read_bytes() == archive


def test_wrong_bytes_are_refused_and_the_next_mirror_asked(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    wrong = Server()
    wrong.data = archive[:-1] + bytes([archive[-1] ^ 1])
    server.data = archive
    mirrors = [wrong.url, server.url]
    openslr.fetch_split("dev-clean", tmp_path / "data", mirrors, pause_seconds=0)
    assert server.asked == [None], "nothing of the wrong file is continued"
    wrong.http.shutdown()
    wrong.http.server_close()


def test_no_mirror_that_delivers_is_told_with_each_reason(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    server.broken = True
    with pytest.raises(OmniError, match=r"download failed; .*404.*; .*refused"):
        openslr.fetch_split(
            "dev-clean", tmp_path, [server.url, "http://127.0.0.1:1"], pause_seconds=0
        )
    assert not (tmp_path / "LibriSpeech").exists()


def test_a_mirror_that_drips_is_left_for_the_next(
    server: Server, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 0.5)
    server.data, well = archive, server.url
    dripping = Server()
    dripping.data, dripping.drip = archive, 0.1
    with pytest.raises(OmniError, match=r"too slow: \d+ bytes in \d+ s") as caught:
        openslr.fetch_split("dev-clean", tmp_path / "a", [dripping.url], pause_seconds=0)
    assert "\n" not in str(caught.value)
    assert len(dripping.asked) == 1
    found = openslr.fetch_split("dev-clean", tmp_path / "b", [dripping.url, well], pause_seconds=0)
    assert (found / "LibriSpeech/dev-clean").is_dir()
    dripping.http.shutdown()
    dripping.http.server_close()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-of-omni", "LibriSpeech/../../evil"])
def test_an_archive_that_leads_out_is_refused(
    server: Server, tmp_path: Path, monkeypatch, name: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    server.data = buffer.getvalue()
    publish(monkeypatch, server.data)
    # An absolute path is made relative by the filter: then the split is not in the archive.
    with pytest.raises(OmniError, match=r"outside its folder|holds no LibriSpeech"):
        get(server, tmp_path / "data")
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/evil-of-omni").exists()
    assert not list((tmp_path / "data").glob(".*"))


def test_a_cut_archive_is_told(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "dev-clean.tar.gz").write_bytes(archive[: len(archive) // 2])
    with pytest.raises(OmniError, match="can't be unpacked"):
        openslr.fetch_split("dev-clean", tmp_path, [])
    assert not (tmp_path / "LibriSpeech").exists()


def test_splits_are_known(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="no such split"):
        openslr.fetch_split("dev-dirty", tmp_path)
    assert PUBLISHED["train-clean-5"].resource == 31
    with pytest.raises(OmniError, match="no such split"):
        hub.fetch_split("train-clean-5", tmp_path)
    assert hub.hub_names("train-clean-100") == ("clean", "train.100")
    assert hub.hub_names("dev-other") == ("other", "validation")
    assert hub.hub_names("test-clean") == ("clean", "test")


def test_auto_takes_what_is_on_disk_and_an_archive_before_the_hub(
    archive: bytes, tmp_path: Path
) -> None:
    (tmp_path / "dev-clean.tar.gz").write_bytes(archive)
    source = Source("dev-clean", downloads=tmp_path)
    assert fetch(source) == tmp_path
    assert len(find_manifests(source)[0].utterances) == 6
    assert fetch(replace(source, source="disk")) == tmp_path


def hub_folder(tree: Path, folder: Path) -> Path:
    """The tree as parquet in the hub's layout: config `clean`, split `validation`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for u in librispeech_manifest(tree, "dev-clean").utterances:
        data = (tree / "LibriSpeech" / u.audio).read_bytes()
        speaker, chapter, _ = u.id.split("-")
        rows.append(
            {
                "file": f"{u.id}.flac",
                "audio": {"bytes": data, "path": f"{u.id}.flac"},
                "text": u.text,
                "speaker_id": int(speaker),
                "chapter_id": int(chapter),
                "id": u.id,
            }
        )
    (folder / "clean").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "clean" / "validation-0000.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: clean\n  data_files:\n"
        "  - split: validation\n    path: clean/validation-*.parquet\n---\n"
    )
    return folder


def test_the_hubs_parquet_becomes_the_same_tree(tmp_path: Path) -> None:
    tree = noise_tree(tmp_path / "origin", 6)
    repo = hub_folder(tree, tmp_path / "repo")
    root = hub.fetch_split("dev-clean", tmp_path / "data", str(repo), None)
    ours, theirs = librispeech_manifest(root, "dev-clean"), librispeech_manifest(tree, "dev-clean")
    assert [(u.id, u.text, u.audio, u.n_samples) for u in ours.utterances] == [
        (u.id, u.text, u.audio, u.n_samples) for u in theirs.utterances
    ]
    audio = ours.utterances[0].audio
    assert (root / "LibriSpeech" / audio).read_bytes() == (
        tree / "LibriSpeech" / audio
    ).read_bytes()
    assert hub.fetch_split("dev-clean", root, "no/such-repo") == root, (
        "what is there is not fetched"
    )


def test_a_hub_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match="--source openslr"):
        hub.fetch_split("dev-clean", tmp_path)
