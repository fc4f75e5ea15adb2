"""What each split does in a run: it trains, it evaluates, or neither. Told by its index alone.

Must not know samples, the model or the order of batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from omni.errors import OmniError
from omni.formats.splits import (
    SplitIndex,
    check_fingerprints,
    find_splits,
    name_apart,
    role_here,
    usable_places,
)


@dataclass(frozen=True)
class Sides:
    """Splits by what they do here. train: with how often each is seen in a pass; judges: by the
    name of their figures. notes: lines for the user."""

    train: list[tuple[SplitIndex, float]]
    judges: dict[str, SplitIndex]
    notes: tuple[str, ...] = ()


def choose_sides(
    roots: Sequence[str], weights: Sequence[float] = (), eval_roots: Sequence[str] = ()
) -> Sides:
    """Find the splits below `roots` and sort them by role. Reads indices alone.

    Args:
        weights: how often each root's samples are seen in a pass; empty for once.
        eval_roots: evaluate on all splits below these instead.

    Raises:
        OmniError: nothing to train on, fingerprints that differ, a split on both sides.
    """
    if weights and len(weights) != len(roots):
        raise OmniError(f"{len(weights)} weights for {len(roots)} shard folders", "--weights")
    weighted = [
        (split, weight)
        for root, weight in zip(roots, weights or [1.0] * len(roots), strict=True)
        for split in find_splits(root)
    ]
    train = [(split, weight) for split, weight in weighted if role_here(split) == "train"]
    judges = [split for split, _ in weighted if role_here(split) == "eval"]
    notes = [
        f"split {split.split} ({split.folder}) is marked for training, its name says evaluation: "
        "it evaluates; extract it under another name to train on it"
        for split in {split.folder: split for split, _ in weighted}.values()
        if role_here(split) != split.role
    ]
    if eval_roots:
        judges = [split for root in eval_roots for split in find_splits(root)]
        if not judges:
            raise OmniError(
                "no finished split to evaluate on", ", ".join(eval_roots), "extract one, or leave "
                "--eval-shards out",
            )  # fmt: skip
    if not any(usable_places(split, e.n_text) for split, _ in train for e in split.shards):
        found = ", ".join(f"{split.split} ({role_here(split)}, {split.n})" for split, _ in weighted)
        raise OmniError(
            "no training samples with transcripts", where=found or ", ".join(roots),
            mend="extract a split that trains: --split demo, or train-clean-100",
        )  # fmt: skip
    _check_folders([split for split, _ in train], judges)
    named = name_apart(judges)
    check_fingerprints([split for split, _ in train] + list(named.values()))
    return Sides(train, named, tuple(notes))


def _check_folders(train: Sequence[SplitIndex], judges: Sequence[SplitIndex]) -> None:
    """No folder on both sides, wherever it was given."""
    mine = {_place(split) for split in train}
    for split in judges:
        if _place(split) in mine:
            raise OmniError(
                f"split {split.split} would both train and evaluate",
                mend="give --eval-shards a split that is not trained on",
            )


def _place(split: SplitIndex) -> str:
    return str(split.folder.resolve())
