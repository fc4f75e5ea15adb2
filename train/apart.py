"""No utterance both trains and evaluates: told by its id and by its audio, never by a path.

Must not know where utterances come from or how they are used.
"""

from collections.abc import Iterable

from omni.errors import OmniError
from train.roll import Known

SHOWN = 3  # collisions spelt out


def check_apart(train: Iterable[tuple[str, Known]], judges: Iterable[tuple[str, Known]]) -> None:
    """Compare ids and hashes of the audio of both sides, each given with its split's name.

    Equal audio under two ids is one utterance; so are two recordings under one id, since tables
    beside the shards know an utterance by its id alone.

    Raises:
        OmniError: an utterance on both sides; names some, and their splits.
    """
    ids: dict[str, str] = {}
    audio: dict[str, tuple[str, str]] = {}
    for split, known in judges:
        ids.setdefault(known.id, split)
        if known.sha256:
            audio.setdefault(known.sha256, (known.id, split))
    collisions: dict[str, str] = {}  # by id: a split seen twice counts once
    for split, known in train:
        if known.id in ids:
            collisions[known.id] = f"{known.id} of {split} and of {ids[known.id]}"
        elif known.sha256 in audio:
            other, judge = audio[known.sha256]
            collisions[known.id] = f"{known.id} of {split} is the audio of {other} of {judge}"
    if collisions:
        n = len(collisions)
        shown = "; ".join(list(collisions.values())[:SHOWN]) + ("; …" if n > SHOWN else "")
        raise OmniError(
            f"{n:,} utterance{'s' * (n > 1)} would both train and evaluate",
            where=shown,
            mend="leave one of these splits out of --shards, or take the utterances (equal ids, or "
            "equal audio) out of one corpus and extract it again",
        )
