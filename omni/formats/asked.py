"""A table of tasks and what it asks about: the table checked against a run, its utterances from shards.

Must not know a model, nor what is asked.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.run_files import Provenance
from omni.formats.shards import Sample, same_width
from omni.formats.splits import SplitIndex
from omni.formats.tasks import Tasks, read_tasks, table_path

_MEND = "judge by a table of splits that evaluate, as omni-mix --mini makes them"


@dataclass(frozen=True)
class Table:
    """A table that may judge a run. name: as it was asked for, without folder and ending."""

    name: str
    path: Path
    sha256: str
    tasks: Tasks


def open_table(name: str | Path, provenance: Provenance) -> Table:
    """The table of this name or path, to judge the run by.

    Raises:
        OmniError: as `read_tasks`; a table for training that the run has trained on, itself or what it
            asks about.
    """
    path = table_path(name)
    tasks = read_tasks(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if tasks.header["role"] == "train":
        used = {split["split"] for split in provenance["splits"] if split["role"] == "train"}
        seen = used & {task.split for task in tasks.rows if task.id}
        trained = provenance.get("tasks")
        if isinstance(trained, dict) and trained.get("sha256") == sha256:
            raise OmniError("the run has trained on this table", str(path), _MEND)
        if seen:
            raise OmniError(
                f"a table for training, about {min(seen)}, which the run has trained on",
                str(path),
                _MEND,
            )
    return Table(path.stem, path, sha256, tasks)


def read_utterances(splits: Sequence[SplitIndex], ids: Collection[str]) -> dict[str, Sample]:
    """The utterances of these ids by id, with or without a transcript; they may lie in any split.

    Raises:
        OmniError: some are in none, in one line; a damaged shard.
    """
    left = set(ids)
    found: dict[str, Sample] = {}
    width = 0
    for path in (entry.path for split in splits for entry in split.shards):
        if not left:
            break
        here = left & {meta["id"] for _, meta in shard_files.read_metas(path)}
        if not here:
            continue
        for sample in shard_files.read_shard(path):
            if sample.meta["id"] in here:
                width = same_width(path, sample, width)
                found[sample.meta["id"]] = sample
        left -= here
    if left:
        raise OmniError(
            f"{len(left):,} of {len(set(ids)):,} utterances that the table asks about are in no shard, "
            f"{min(left)} among them",
            ", ".join(split.split for split in splits) or "no split",
            "extract their split, or give its folder with --shards",
        )
    return found
