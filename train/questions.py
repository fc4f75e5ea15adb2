"""Four-option questions that a run is asked as it trains: about utterances that judge, never train.

Must not know how they are put, nor what their figures mean.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omni.errors import OmniError
from omni.formats.asked import read_utterances
from omni.formats.shards import Sample
from omni.formats.splits import SplitIndex
from omni.formats.tasks import Task, read_tasks, table_path


class Questions(NamedTuple):
    """Rows of a table, by its name, and the utterances that they are about, by id."""

    name: str
    rows: list[Task]
    samples: dict[str, Sample]


def read_questions(name: str, judges: Sequence[SplitIndex], limit: int) -> Questions:
    """At most `limit` of the table's questions, evenly spaced (0: all).

    Raises:
        OmniError: no table; one for training; no question with options; an utterance that is in none
            of the splits that judge here.
    """
    path = table_path(Path(name))
    tasks = read_tasks(path)
    if tasks.header["role"] != "eval":
        raise OmniError(
            "a table for training does not judge", str(path), "make one with omni-mix --mini"
        )
    rows = [task for task in tasks.rows if task.options and task.id]
    if not rows:
        raise OmniError("no question with options about an utterance", str(path))
    n = len(rows)
    if 0 < limit < n:
        rows = [rows[i * n // limit] for i in range(limit)]
    return Questions(path.stem, rows, read_utterances(judges, {task.id for task in rows}))
