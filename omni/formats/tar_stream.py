"""A tar written front to back, hashed and counted on its way.

The bytes are those of webdataset's TarWriter (owner bigdata, mode 0444, time 0, PAX where a name is
longer than USTAR's 100 bytes), without its copies: that one cuts every member into blocks of 10 KiB, and
each costs a call of the hash and of the file. Must not know what the members hold.
"""

import hashlib
import tarfile
from typing import BinaryIO

_RECORD = tarfile.RECORDSIZE  # a tar ends at a multiple of it, after two empty blocks


class TarStream:
    """Members appended to an open file; `sha256` and `n` are of all bytes so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.n = 0

    def add(self, name: str, data: bytes) -> None:
        """Append a member; hashing and writing let other threads run.

        Raises:
            OSError: the file takes no more.
        """
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uname, info.gname = len(data), 0o444, "bigdata", "bigdata"
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def end(self) -> None:
        """Append what ends a tar."""
        n = self.n + 2 * tarfile.BLOCKSIZE
        self._write(bytes(2 * tarfile.BLOCKSIZE + -n % _RECORD))

    def _write(self, data: bytes) -> None:
        self.sha256.update(data)
        self._file.write(data)
        self.n += len(data)
