"""A store that misbehaves: a local HTTP server, and an fsspec file system that reads from it.

fsspec's own HTTP file system needs a package that is not installed everywhere; this one is as
patient as a client can be: it knows no timeout of its own.
"""

import contextlib
import http.client
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

PROTOCOL = "patient"


class PatientFileSystem(AbstractFileSystem):
    """`patient://127.0.0.1:PORT/path`: whole files by GET, sizes by HEAD, folders by LIST."""

    protocol = PROTOCOL
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix(f"{PROTOCOL}://").rstrip("/")

    def _ask(self, method: str, path: str) -> http.client.HTTPResponse:
        host, _, name = self._strip_protocol(path).partition("/")
        connection = http.client.HTTPConnection(host)
        connection.request(method, f"/{name}")
        response = connection.getresponse()
        if response.status == 404:
            raise FileNotFoundError(path)
        return response

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        answer = self._ask("HEAD", path)
        kind = "directory" if answer.getheader("X-Folder") else "file"
        return {"name": self._strip_protocol(path), "size": int(answer.getheader("Content-Length", 0)), "type": kind}  # fmt: skip

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        names = self._ask("LIST", path).read().decode().split("\n")
        there = [f"{self._strip_protocol(path)}/{name}" for name in names if name]
        return [self.info(name) for name in there] if detail else there

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return _Body(self._ask("GET", path))


class _Body(io.RawIOBase):
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer, self._at = answer, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._answer.read(None if size < 0 else size)


class CountingFileSystem(AbstractFileSystem):
    """`counted:///path`: files of this machine by ranges, as S3 gives them; counts the bytes."""

    protocol = "counted"
    cachable = False
    fetched = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix("counted://")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        file = Path(self._strip_protocol(path))
        kind = "directory" if file.is_dir() else "file"
        return {"name": str(file), "size": file.stat().st_size, "type": kind}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        names = [str(file) for file in Path(self._strip_protocol(path)).iterdir()]
        return [self.info(name) for name in names] if detail else names

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **more: Any) -> Any:
        return _Counted(self, path, mode, block_size or "default", **more)


class _Counted(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(start)
            data = file.read(end - start)
        CountingFileSystem.fetched += len(data)
        return data


@contextlib.contextmanager
def counted(folder: Path) -> Iterator[str]:
    """The URL of a folder in a store that counts; `CountingFileSystem.fetched` begins at 0."""
    fsspec.register_implementation("counted", CountingFileSystem, clobber=True)
    CountingFileSystem.fetched = 0
    yield f"counted://{folder}"


@contextlib.contextmanager
def misbehaving(folder: Path, how: str, only: str = "") -> Iterator[str]:
    """The URL of a folder behind a server that answers paths holding `only` in its own way.

    Args:
        how: "stalls" (nothing after the head), "silent" (not even that), "drips" (a byte at a
            time), "halves" (half of what is announced, then gone), "shortens" (announces half),
            "lengthens" (announces and sends more), "refuses" (gone at once), or "" for well.
    """
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing is said."""

        def do_HEAD(self) -> None:
            self.answer(b"", head=True)

        def do_LIST(self) -> None:
            names = sorted(p.name for p in (folder / self.path.strip("/")).iterdir())
            self.answer("\n".join(names).encode())

        def do_GET(self) -> None:
            self.answer((folder / self.path.strip("/")).read_bytes())

        def answer(self, data: bytes, head: bool = False) -> None:
            path = folder / self.path.strip("/")
            bad = how if only in self.path else ""
            if bad == "refuses":
                return self.connection.close()
            if bad == "silent":
                over.wait()
                return None
            if not path.exists():
                return self.send_error(404)
            if bad == "lengthens" and not head:
                data += bytes(512)
            size = path.stat().st_size if head and path.is_file() else len(data)
            self.send_response(200)
            self.send_header("Content-Length", str(size // 2 if bad == "shortens" else size))
            if path.is_dir():
                self.send_header("X-Folder", "1")
            self.end_headers()
            if bad == "stalls" and data:
                over.wait()
            elif bad == "drips":
                for i in range(len(data)):
                    self.wfile.write(data[i : i + 1])
                    if over.wait(0.05):
                        return None
            else:
                self.wfile.write(data[: len(data) // 2] if bad in ("halves", "shortens") else data)
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fsspec.register_implementation(PROTOCOL, PatientFileSystem, clobber=True)
        try:
            yield f"{PROTOCOL}://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
