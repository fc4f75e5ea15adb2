"""What is left to do of a split: shards that are not there, and shards made from what has changed.

A shard stays if all that decides its content is as it was: ids, texts, speakers, the audio's bytes, and
what could not be decoded still can't be. Must not know how a shard is made.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from extract.ahead import decode
from extract.inputs import audio_file, forget_files, inputs_hash, stamp_of
from extract.pipeline import Job
from omni.errors import OmniError
from omni.formats.manifest import Problem, Utterance
from omni.formats.records import Sidecar, shard_name
from omni.formats.shard_writer import committed
from omni.formats.shards import read_metas

_LOOKERS = 8  # threads: a network disk answers slowly


class Missing(NamedTuple):
    """What a rank has to make."""

    shards: list[int]
    stale: list[int]  # of them there already, made from something else

    def told(self, split: str) -> str:
        """One line where there are stale ones; else empty."""
        if not self.stale:
            return ""
        return (
            f"{split}: {len(self.stale)} of the shards there are made anew: texts, speakers, audio or "
            "the choice of utterances are not those they were made from"
        )


def missing_shards(job: Job, mine: list[int], look_closely: bool = False) -> Missing:
    """Those of `mine` that are not committed, or not made from what the corpus holds now.

    Args:
        mine: shards of this rank.
        look_closely: read every audio file, though its size and time of change are the same.

    Raises:
        OmniError: those there were made with another configuration; recordings that a shard to be
            replaced was made from are gone: the disk may be away, and its features can't be made again.
    """
    if look_closely:
        forget_files()
    shards, stale = list[int](), list[int]()
    with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="look") as pool:
        for shard in mine:
            sidecar = committed(job.spec, shard)
            if sidecar is not None and _is_as_it_was(job, shard, sidecar, pool, look_closely):
                continue
            shards.append(shard)
            if sidecar is not None:
                stale.append(shard)
                _refuse_if_gone(job, shard)
    return Missing(shards, stale)


def _is_as_it_was(
    job: Job, shard: int, sidecar: Sidecar, pool: ThreadPoolExecutor, look_closely: bool
) -> bool:
    rows = job.rows(shard)
    utterances = [utterance for utterance, _ in rows]
    stamps = list(pool.map(lambda row: stamp_of(*row), rows))
    stamp = inputs_hash(zip(utterances, stamps, strict=True))
    if look_closely or sidecar.get("environment", {}).get("stamp") != stamp:
        hashes = list(pool.map(lambda row: audio_file(*row).sha256, rows))
        if inputs_hash(zip(utterances, hashes, strict=True)) != sidecar["plan"]:
            return False
    return not _decodes_now(rows, sidecar)


def _decodes_now(rows: list[tuple[Utterance, Path]], sidecar: Sidecar) -> bool:
    """Whether a recording that could not be decoded can be now: a package is installed, a permission
    given, a disk well again."""
    unreadable = {
        failure["id"]
        for failure in sidecar["failures"]
        if failure.get("kind", Problem.UNREADABLE) == Problem.UNREADABLE
    }
    again = (row for row in rows if row[0].id in unreadable)
    return any(not decode(utterance, path).problem for utterance, path in again)


def _refuse_if_gone(job: Job, shard: int) -> None:
    tar = job.spec.folder / f"{shard_name(job.spec.split, shard)}.tar"
    there = {meta["id"] for _, meta in read_metas(tar)}
    asked = [row for row in job.rows(shard) if row[0].problem is not Problem.NO_TEXT]
    gone = [u.id for u, path in asked if u.id in there and not stamp_of(u, path)]
    if gone:
        raise OmniError(
            f"{len(gone)} recordings that {tar.name} was made from are gone, {gone[0]} among them",
            job.manifest.root,
            f"bring them back (is the disk there?), or remove {tar.with_suffix('.json')} to go on without",
        )
