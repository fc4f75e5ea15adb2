"""What is asked of each utterance in training: rows of a table of tasks, as turns of the LM's rows.

Several task rows of an utterance can share one row, and so its soft tokens: they become turns, the audio
in the first. Which rows share is a function of (seed, id); their order and where each key stands, of
(seed, pass, id, copy). Must not know features, nor the order of batches.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np

from omni.bridge.room import Room
from omni.bridge.turns import Turn, letter_ids
from omni.errors import OmniError
from omni.formats.run_files import Kind
from omni.formats.tasks import LETTERS, Task, Tasks, question, read_tasks, table_path
from omni.nanochat.tokenizer import Tokenizer
from train.passes import Shard

if TYPE_CHECKING:  # the stream needs no globs of folders
    from train.roll import Known

MOST_JUDGES = 64  # utterances whose rows choose the checkpoint and don't train
Group = tuple[Task, ...]  # the task rows of one row of the LM


@dataclass(frozen=True)
class Asked:
    """The rows of a table.

    groups: by the utterance's id; alone: rows of text alone, which teach something where adapters act
    in them. kind: of the LM's rows.
    """

    groups: Mapping[str, tuple[Group, ...]]
    alone: tuple[Task, ...]
    seed: int
    kind: Kind

    def count(self, utterance: str) -> int:
        """Rows of the LM that an utterance has in a pass."""
        return len(self.groups.get(utterance, ()))

    def turns(self, utterance: str, number: int, copy: int) -> tuple[Turn, ...]:
        """Of one row. number: of the pass; copy: how many rows of the utterance it has had before."""
        groups = self.groups[utterance]
        rng = np.random.default_rng([self.seed, number, crc32(utterance.encode()), copy])
        group = groups[copy % len(groups)]
        order = [group[i] for i in rng.permutation(len(group))]
        moved = [int(rng.integers(len(LETTERS))) for _ in order]
        return tuple(
            turn_of(task, self.kind, i == 0, rotation)
            for i, (task, rotation) in enumerate(zip(order, moved, strict=True))
        )

    def texts(self, number: int, batch: int, batches: int) -> list[tuple[Turn, ...]]:
        """Rows of text alone that go with a batch: each once a pass, evenly over its batches."""
        n = len(self.alone)
        here = range(batch * n // batches, (batch + 1) * n // batches)
        if not here:
            return []
        order = np.random.default_rng([self.seed, number]).permutation(n)
        return [(turn_of(self.alone[order[i]], self.kind, False),) for i in here]


def turn_of(task: Task, kind: Kind, audio: bool, rotation: int = 0) -> Turn:
    """A task row as a turn.

    A chat model answers a question with options by the letter. A base model was never taught letters:
    it answers in words, after a blank.

    Args:
        audio: whether the utterance stands before the prompt: then a blank is between them.
        rotation: by how many places the options move on.
    """
    prompt, key, _ = question(task, rotation)
    answer = key if key and kind == "sft" else task.answer
    if kind == "base":
        answer = f" {answer}"
    return Turn(f" {prompt}" if audio else prompt, answer, audio, own=task.source == "self")


class Table(NamedTuple):
    """A table of tasks and how it is asked.

    where: its path. sha256: of the file. turns: task rows to a row of the LM, at most. alone: whether
    rows of text alone take part.
    """

    tasks: Tasks
    where: str
    sha256: str
    turns: int
    seed: int
    alone: bool


def read_table(name: str, tok: Tokenizer, kind: Kind, turns: int, seed: int, alone: bool) -> Table:
    """The table to train on. Arguments as in `Table`; a base model knows a single turn.

    Raises:
        OmniError: no table; one that judges; four options for an LM whose letters are no tokens.
    """
    path = table_path(Path(name))
    tasks = read_tasks(path)
    if tasks.header["role"] != "train":
        raise OmniError(
            "a table that judges is not trained on", str(path), "make one of a split that trains"
        )
    if kind == "sft" and any(task.options for task in tasks.rows):
        letter_ids(tok)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table(tasks, str(path), sha256, turns if kind == "sft" else 1, seed, alone)


class Put(NamedTuple):
    """What training is made of once it is asked something.

    shards: an utterance's place as often as it has rows. judges: ids of utterances whose rows choose
    the checkpoint; theirs don't train. notes: lines for the user.
    """

    shards: list[Shard]
    asked: Asked
    judges: dict[str, tuple[Group, ...]]
    notes: list[str]

    def rows_of_judges(self) -> dict[str, list[tuple[Turn, ...]]]:
        """By id, laid out as in the first pass."""
        asked = replace(self.asked, groups=self.judges)
        return {u: [asked.turns(u, 0, i) for i in range(len(g))] for u, g in self.judges.items()}


def put(
    table: Table, shards: Sequence[Shard], known: Sequence[Sequence["Known"]], room: Room
) -> Put:
    """Ask the utterances of the training shards what the table asks.

    Args:
        known: of each shard, by place.

    Raises:
        OmniError: a row's utterance is in no shard; nothing is left to train on.
    """
    kind: Kind = "sft" if room.template is None else room.template.kind
    tasks, where = table.tasks, table.where
    groups = make_groups(tasks.rows, table.turns, table.seed)
    _refuse_missing(groups, (one.id for by_place in known for one in by_place), where)
    fitting: dict[str, tuple[Group, ...]] = {}
    for shard, by_place in zip(shards, known, strict=True):
        for place in shard.places:
            mine = groups.get(by_place[place].id, ())
            kept = [
                part for group in mine for part in _fit(group, shard.n_frames[place], room, kind)
            ]
            if kept:
                fitting[by_place[place].id] = tuple(kept)
    judges = {utterance: fitting.pop(utterance) for utterance in _judges(sorted(fitting))}
    if not fitting:
        mend = "give --shards the splits that the table was made of"
        raise OmniError("no row of the table can train", where, mend)
    rows = tuple(task for task in tasks.rows if not task.id)
    asked = Asked(fitting, rows if table.alone else (), table.seed, kind)
    repeated = [
        replace(shard, places=tuple(
            place for place in shard.places for _ in range(asked.count(by_place[place].id))
        ))
        for shard, by_place in zip(shards, known, strict=True)
    ]  # fmt: skip
    taken = sum(len(g) for mine in (*fitting.values(), *judges.values()) for g in mine)
    return Put(repeated, asked, judges, _notes(tasks, taken, judges, table.alone))


def _notes(tasks: Tasks, taken: int, judges: Mapping[str, object], alone: bool) -> list[str]:
    texts = sum(not task.id for task in tasks.rows)
    notes = [f"rows of {len(judges):,} utterances choose the checkpoint and don't train"]
    if not judges:
        notes = ["so few utterances: the checkpoint is chosen by a split that evaluates"]
    if lost := len(tasks.rows) - texts - taken:
        notes.append(
            f"{lost:,} rows of the table left out: too long for the LM, or of utterances that take no part"
        )
    if texts and not alone:
        notes.append(
            f"{texts:,} rows of text alone left out: adapters act in rows with audio alone, so that "
            "these would teach nothing"
        )
    return notes


def _judges(ids: Sequence[str]) -> list[str]:
    """One in twenty, by a hash of the id: the same whatever else is in the table."""
    by_hash = sorted(ids, key=lambda utterance: (crc32(utterance.encode()), utterance))
    return by_hash[: min(len(ids) // 20, MOST_JUDGES)]


def _fit(group: Group, n_frames: int, room: Room, kind: Kind) -> list[Group]:
    """The group, or its task rows one by one where it is too long; what is too long alone is left out."""
    if room.holds(n_frames, _longest(group, room.tok, kind), training=True):
        return [group]
    if len(group) == 1:
        return []
    return [part for task in group for part in _fit((task,), n_frames, room, kind)]


def _longest(group: Group, tok: Tokenizer, kind: Kind) -> tuple[Turn, ...]:
    """Its turns at their longest: chance decides which stands behind the audio, with a blank more, and
    in which order the options come."""
    turns = []
    for i, task in enumerate(group):
        rotations = range(len(task.options) or 1)
        ways = [turn_of(task, kind, audio, r) for audio in (True, False) for r in rotations]
        longest = max(ways, key=lambda turn: len(tok.encode(turn.prompt)))
        turns.append(replace(longest, audio=i == 0))
    return tuple(turns)


def make_groups(tasks: Iterable[Task], turns: int, seed: int) -> dict[str, tuple[Group, ...]]:
    """The rows of each utterance, `turns` of them to a row of the LM at most."""
    rows: dict[str, list[Task]] = {}
    for task in tasks:
        if task.id:
            rows.setdefault(task.id, []).append(task)
    groups = {}
    for utterance, mine in rows.items():
        order = np.random.default_rng([seed, crc32(utterance.encode())]).permutation(len(mine))
        mixed = [mine[i] for i in order]
        groups[utterance] = tuple(tuple(mixed[i : i + turns]) for i in range(0, len(mixed), turns))
    return groups


def _refuse_missing(
    groups: Mapping[str, Sequence[Group]], known: Iterable[str], where: str
) -> None:
    """
    Raises:
        OmniError: a row's utterance is in none of the splits that train; names some.
    """
    missing = sorted(set(groups).difference(known))
    if missing:
        n, some = len(missing), ", ".join(missing[:3])
        raise OmniError(
            f"{n:,} utterances of the table are in no split that trains here ({some})", where,
            "give --shards the splits that the table was made of",
        )  # fmt: skip
