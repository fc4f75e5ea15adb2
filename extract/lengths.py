"""How long a recording is, as far as that can be told before it is decoded. Must not decode."""

from pathlib import Path

from omni.formats.manifest import Utterance

# No speech codec in use needs fewer; a header that promises more sound than that is a broken one.
LEAST_BYTES_A_SECOND = 250
USUAL_BYTES_A_SECOND = 8_000  # where the header tells nothing: 64 kbit/s


def expected_seconds(utterance: Utterance, path: Path) -> float:
    """What the header promises, if the file can hold it; else a guess by the file's size.

    Args:
        path: of the utterance's file; one that is not there has 0 s.
    """
    try:
        size = path.stat().st_size if utterance.is_complete else 0
    except (OSError, ValueError):  # ValueError: a NUL in the name
        size = 0
    promised = utterance.seconds
    if 0 < promised <= size / LEAST_BYTES_A_SECOND:
        return promised
    return size / USUAL_BYTES_A_SECOND
