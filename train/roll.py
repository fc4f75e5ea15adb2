"""What a run knows of its utterances before it reads any features: id, speaker, text, audio's hash,
and where in its tar each lies.

One walk over the tars' metas, which seeks over the features: the same walk serves the check that
training and evaluation are apart, the choice of what is held out, the lengths, the control with
wrong pairs, and the stream, which reads each sample from its place. Must not know what any of them
decides.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from omni.formats import shards as shard_files
from omni.formats.splits import ShardEntry, SplitIndex

_LOOKERS = 16  # threads: a store or a network disk answers slowly, each jump is a question
PATIENCE = 3.0  # seconds without a word


class Known(NamedTuple):
    """One utterance. sha256: of its 16 kHz samples, "" if unknown; text: as it is trained on; end:
    byte of its tar where its members end (0: not known)."""

    id: str
    speaker: str
    text: str
    sha256: str
    end: int = 0


def call_roll(
    splits: Sequence[SplitIndex], say: Callable[[str], None] = lambda line: None
) -> list[list[list[Known]]]:
    """Every utterance of each split, by shard, in the order of the tar.

    Args:
        say: told how far it is, every few seconds if it takes so long.

    Raises:
        OmniError: a damaged shard.
    """
    total = sum(split.n for split in splits)
    done, told = 0, time.monotonic()
    roll: list[list[list[Known]]] = [[] for _ in splits]
    with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="roll") as pool:
        entries = [
            (by_shard, e) for by_shard, s in zip(roll, splits, strict=True) for e in s.shards
        ]
        found = pool.map(lambda entry: _call(entry[1]), entries)
        for (by_shard, _), known in zip(entries, found, strict=True):
            by_shard.append(known)
            done += len(known)
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                say(f"looking through the shards: {done:,} of {total:,} utterances")
    return roll


def _call(entry: ShardEntry) -> list[Known]:
    placed = ((placed.meta, placed.end) for placed in shard_files.read_placed(entry.path))
    return [Known(m["id"], m["speaker"], m["text_norm"], m["sha256"], end) for m, end in placed]
