"""Which samples train and which evaluate: those that fit the LM, and no utterance in both.

Must not know the model or the order of batches.
"""

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from omni.bridge.room import Room
from omni.bridge.turns import Turn
from omni.encoder import frames_per_second
from omni.errors import OmniError
from omni.formats.records import FeatureConfig
from omni.formats.run_files import HELD_OUT_NAME, Content, SplitUse
from omni.formats.shards import Sample
from omni.formats.splits import (
    SplitIndex,
    read_ids,
    read_split,
    role_here,
    usable_places,
)
from train.apart import check_apart
from train.asking import Asked, Put, Table, put
from train.content import content_of
from train.heldout import hold_out
from train.passes import Shard
from train.roll import Known, call_roll
from train.sides import Sides, choose_sides

FEWEST_STEPS, MOST_STEPS = 100, 8000


class Judge(NamedTuple):
    """A row that does not train: its utterance, and its turns."""

    sample: Sample
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from and is judged by.

    shards: of the training splits. eval_sets: samples by split, in memory. select: the split
    whose CE picks the best checkpoint. fingerprint(_config): of all features. splits: name, role,
    n of everything used, for the provenance. held_out: ids that `hold_out` took from training,
    empty where a split evaluates. content: what a resumed run must find again. texts: of every
    sample of each shard, if asked for. asked: the rows of a table of tasks, where there is one;
    judges: rows of it that choose the checkpoint. note: lines for the user, or "".
    """

    shards: list[Shard]
    eval_sets: dict[str, list[Sample]]
    select: str
    fingerprint: str
    fingerprint_config: FeatureConfig
    splits: list[SplitUse]
    content: Content
    held_out: tuple[str, ...] = ()
    texts: Sequence[Sequence[str]] = ()
    asked: Asked | None = None
    judges: tuple[Judge, ...] = ()
    note: str = ""

    def steps(self, batch_size: int, batch_frames: int) -> int:
        """Steps of a run that names none: ten passes, between FEWEST_STEPS and MOST_STEPS.

        A small corpus is learnt by heart after that; of a large one, a few thousand steps show
        whether the model listens.
        """
        lengths = [s.n_frames[i] * s.weight for s in self.shards for i in s.places]
        samples = sum(s.weight * len(s.places) for s in self.shards)
        a_pass = sum(lengths) / batch_frames if batch_frames else samples / batch_size
        return min(max(round(10 * a_pass), FEWEST_STEPS), MOST_STEPS)

    @property
    def longest_seconds(self) -> float:
        """Length of the longest training utterance: beyond it a projector was never tried."""
        longest = max(s.n_frames[i] for s in self.shards for i in s.places)
        return longest / frames_per_second(self.fingerprint_config)


def gather(
    roots: Sequence[str],
    weights: Sequence[float] = (),
    eval_roots: Sequence[str] = (),
    eval_limit: int = 0,
) -> TrainingData:
    """`choose_sides`, then `read_sides`: what lies below `roots`, whatever fits the LM or not."""
    return read_sides(choose_sides(roots, weights, eval_roots), eval_limit)


def read_sides(
    sides: Sides,
    eval_limit: int = 0,
    room: Room | None = None,
    keep_texts: bool = False,
    table: Table | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TrainingData:
    """Read the evaluation samples, and which of the training splits' samples take part.

    Args:
        eval_limit: at most so many utterances of each evaluation split, evenly spaced; 0 for all.
        room: of the LM's rows; what does not fit is left out, on both sides. None: all of it fits.
        keep_texts: of all training samples, for the control with wrong pairs.
        table: of tasks, to be asked instead of repeating; needs `room`.
        say: told of progress while a long roll is called.

    Raises:
        OmniError: an utterance on both sides; nothing that fits; nothing to judge by.
    """
    splits = [split for split, _ in sides.train]
    roll = call_roll([*splits, *sides.judges.values()], say)
    train_roll, judge_roll = roll[: len(splits)], roll[len(splits) :]
    check_apart(_named(splits, train_roll), _named(list(sides.judges.values()), judge_roll))
    notes = list(sides.notes)
    shards, too_long = _training_shards(sides.train, train_roll, room)
    notes += too_long
    known = [by_place for by_shard in train_roll for by_place in by_shard]

    eval_sets: dict[str, list[Sample]] = {}
    for (name, split), by_shard in zip(sides.judges.items(), judge_roll, strict=True):
        skip, line = _too_long(split, by_shard, room, training=False)
        notes += [f"{line} of evaluation ({name})"] if line else []
        if samples := read_split(split, eval_limit, skip):
            eval_sets[name] = samples
    held_out: tuple[str, ...] = ()
    if not any(_speaks(samples) for samples in eval_sets.values()):
        shards, held_out, note = _hold_out(shards, known)
        notes.append(note)
        eval_sets[_free_name(eval_sets)] = read_ids(splits, held_out, eval_limit)
    asked: Asked | None = None
    judges: tuple[Judge, ...] = ()
    if table is not None and room is not None:
        found = put(table, shards, known, room)
        shards, asked = found.shards, found.asked
        notes += found.notes
        judges = _read_judges(splits, found)
    named = [*((split.split, split) for split in splits), *sides.judges.items()]
    return TrainingData(
        shards=shards,
        eval_sets=eval_sets,
        select=_selection_split(eval_sets),
        fingerprint=splits[0].fingerprint,
        fingerprint_config=splits[0].fingerprint_config,
        splits=[SplitUse(split=name, role=role_here(s), n=s.n) for name, s in named],
        held_out=held_out,
        content=content_of(splits, shards, table.sha256 if table else ""),
        texts=[[u.text for u in by_place] for by_place in known] if keep_texts else (),
        asked=asked,
        judges=judges,
        note="\n".join(notes),
    )


def _read_judges(splits: Sequence[SplitIndex], found: Put) -> tuple[Judge, ...]:
    samples = {s.meta["id"]: s for s in read_ids(splits, sorted(found.judges))}
    return tuple(
        Judge(samples[utterance], row)
        for utterance, rows in sorted(found.rows_of_judges().items())
        for row in rows
    )


def _named(
    splits: Sequence[SplitIndex], roll: Sequence[Sequence[Sequence[Known]]]
) -> Iterator[tuple[str, Known]]:
    """(split, utterance) of all that can train or judge: what lacks a transcript does neither."""
    for split, by_shard in zip(splits, roll, strict=True):
        for entry, by_place in zip(split.shards, by_shard, strict=True):
            for place in usable_places(split, entry.n_text):
                yield split.split, by_place[place]


def _training_shards(
    train: Sequence[tuple[SplitIndex, float]],
    roll: Sequence[Sequence[Sequence[Known]]],
    room: Room | None,
) -> tuple[list[Shard], list[str]]:
    """Shards with the places that have a transcript and fit; lines on what does not."""
    shards: list[Shard] = []
    notes = []
    for (split, weight), by_shard in zip(train, roll, strict=True):
        skip, line = _too_long(split, by_shard, room, training=True)
        notes += [f"{line} of training ({split.split})"] if line else []
        first = 0
        for entry, by_place in zip(split.shards, by_shard, strict=True):
            places = [p for p in usable_places(split, entry.n_text) if first + p not in skip]
            frames, ends = tuple(entry.n_frames), array("q", [known.end for known in by_place])
            shards.append(Shard(str(entry.path), frames, tuple(places), weight, ends))
            first += entry.n
    if not any(shard.places for shard in shards):
        raise OmniError(
            "no training utterance fits in a row of the LM", where="; ".join(notes),
            mend="stack more frames to a soft token with --stack, or extract shorter utterances",
        )  # fmt: skip
    return shards, list(dict.fromkeys(notes))


def _too_long(
    split: SplitIndex,
    by_shard: Sequence[Sequence[Known]],
    room: Room | None,
    training: bool,
) -> tuple[set[int], str]:
    """Places, counted over the split, of rows longer than the LM's; and the line that says so."""
    if room is None:
        return set(), ""
    rate = frames_per_second(split.fingerprint_config)
    found: dict[int, tuple[int, int, Known]] = {}  # place: positions, frames, utterance
    first = 0
    for entry, by_place in zip(split.shards, by_shard, strict=True):
        for place in usable_places(split, entry.n_text):
            frames, known = entry.n_frames[place], by_place[place]
            positions = room.positions(frames, known.text, training)
            if positions > room.limit:
                found[first + place] = positions, frames, known
        first += entry.n
    if not found:
        return set(), ""
    positions, frames, longest = max(found.values(), key=lambda f: (f[0], f[2].id))
    stretched = " when stretched" if training and room.stretch else ""
    line = (
        f"longest: {longest.id}, {frames / rate:.1f} s and {len(longest.text):,} "
        f"characters, {positions:,} positions{stretched}; the LM's rows end at {room.limit:,}"
    )
    what = f"{len(found):,} utterance{'s' * (len(found) > 1)} too long for the LM"
    return set(found), f"{what} ({line}) left out"


def _hold_out(
    shards: Sequence[Shard], known: Sequence[Sequence[Known]]
) -> tuple[list[Shard], tuple[str, ...], str]:
    """Shards without the held-out samples, the ids of those, and the line that says so."""
    at = zip(shards, known, strict=True)
    held = hold_out([by_place[place] for shard, by_place in at for place in shard.places])
    gone = {*held.ids, *held.twins}
    kept = [
        replace(shard, places=tuple(p for p in shard.places if by_place[p].id not in gone))
        for shard, by_place in zip(shards, known, strict=True)
    ]
    return kept, held.ids, held.note


def _free_name(taken: dict[str, list[Sample]]) -> str:
    """HELD_OUT_NAME, or a like one if a split has that name."""
    name = HELD_OUT_NAME
    while name in taken:
        name += "-too"
    return name


def _speaks(samples: Sequence[Sample]) -> bool:
    """Whether anything is said in any of them."""
    return any(sample.meta["text_norm"] for sample in samples)


def _selection_split(eval_sets: dict[str, list[Sample]]) -> str:
    """The first by name that is no test split, which must not choose a checkpoint, and no noise."""
    spoken = [name for name, samples in eval_sets.items() if _speaks(samples)]
    return min(spoken, key=lambda name: (_is_test(name), name))


def _is_test(name: str) -> bool:
    """Whether one of the words of its name is "test" (`test-clean`, `cv-test`, `Test_2`)."""
    return "test" in re.split(r"[^a-z]+", name.lower())
