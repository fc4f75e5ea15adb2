"""Arrays as shards hold them: the header is checked against what is expected before it is believed.

NumPy's own reader allocates what a header claims and evaluates it as Python; this one takes the
header that NumPy writes for a plain array, to the letter, and nothing else. No pickle is ever read.
Must not know what an array holds.
"""

import math
import re
from typing import NamedTuple

import numpy as np

HEADER_BYTES = 1 << 12  # more than any plain array's
_MAGIC = b"\x93NUMPY"
_DTYPES = {b"<f2": np.float16, b"<f4": np.float32, b"|i1": np.int8}
_HEADER = re.compile(
    rb"\{'descr': '([^']*)', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,13},|\d{1,13}(?:, \d{1,13}){1,3})\), \} *\n"
)


class Header(NamedTuple):
    """What an array is said to be, and where its data begins."""

    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int


def load(data: bytearray) -> np.ndarray:
    """The array in a member, C-ordered and writable: a view of `data`, not a copy.

    Raises:
        ValueError: another header than NumPy writes for a plain float16, float32 or int8 array, or
            other than the bytes that it claims.
    """
    dtype, shape, begin = header(data)
    size = begin + math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise ValueError(f"the header claims {size} bytes, there are {len(data)}")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape)


def header(data: bytes | bytearray) -> Header:
    """Checks and reads the header alone; `data` may end after it.

    Raises:
        ValueError: as `load`.
    """
    version = data[6:7]
    if not data.startswith(_MAGIC) or version not in (b"\1", b"\2", b"\3"):
        raise ValueError("no npy header")
    width = 2 if version == b"\1" else 4
    begin = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if begin > HEADER_BYTES:
        raise ValueError(f"an npy header of {begin} bytes")
    found = _HEADER.fullmatch(data[8 + width : begin])
    if not found:
        raise ValueError("an npy header that is not plain")
    descr, fortran, dimensions = found.groups()
    if descr not in _DTYPES:
        raise ValueError(f"an npy of dtype {descr.decode(errors='replace')}")
    if fortran == b"True":
        raise ValueError("an npy in Fortran order")
    shape = tuple(int(n) for n in dimensions.rstrip(b",").split(b","))
    if 0 in shape:
        raise ValueError(f"an npy of shape {shape}")
    return Header(np.dtype(_DTYPES[descr]), shape, begin)


def is_finite(x: np.ndarray) -> bool:
    """Whether no number of a float16 array is NaN or infinite; without a copy.

    Those have all bits of the exponent set: among signed numbers the positive ones are then the
    largest, among unsigned ones the negative.
    """
    flat = x.reshape(-1)
    return bool(flat.view(np.int16).max() < 0x7C00 and flat.view(np.uint16).max() < 0xFC00)
