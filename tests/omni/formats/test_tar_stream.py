"""Our tar is webdataset's, byte for byte, and hashed as it is written.

.venv/bin/python -m pytest tests/omni/formats/test_tar_stream.py
"""

import hashlib
import io
import tarfile

import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.formats.tar_stream import TarStream

# Keys over USTAR's 100 bytes and outside of ASCII go into headers of their own.
KEYS = st.one_of(
    st.text("abcdefXYZ019_-", min_size=1, max_size=300), st.text("aä日/_", min_size=1, max_size=60)
)
SIZES = st.one_of(st.integers(0, 1200), st.sampled_from([511, 512, 513, 10_240, 20_480, 70_000]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KEYS, SIZES, SIZES), max_size=6))
def test_the_bytes_are_webdatasets(samples: list[tuple[str, int, int]]) -> None:
    theirs, ours = io.BytesIO(), io.BytesIO()
    with webdataset.TarWriter(theirs, mtime=0, encoder=False) as writer:
        stream = TarStream(ours)
        for key, a, b in samples:
            members = {"npy": bytes(range(256)) * (a // 256 + 1), "json": b"\xff" * b}
            members["npy"] = members["npy"][:a]
            writer.write({"__key__": key, **members})
            for name in sorted(members):
                stream.add(f"{key}.{name}", members[name])
        stream.end()
    assert ours.getvalue() == theirs.getvalue()
    assert stream.n == len(ours.getvalue())
    assert stream.n % tarfile.RECORDSIZE == 0
    assert stream.sha256.hexdigest() == hashlib.sha256(ours.getvalue()).hexdigest()
