"""Which utterances evaluate where no split does: a hundredth of the data, whole speakers if it can be.

Must not know files: it chooses among utterances, by hash, so that no order of reading matters.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from omni.errors import OmniError
from train.roll import Known

SHARE = 0.01  # of the utterances
LARGEST_SHARE = 0.1  # of them, however large a speaker is
FEWEST = 2  # with different texts: one alone has no other's audio to be compared with


@dataclass(frozen=True)
class HeldOut:
    """ids: what evaluates, sorted. twins: ids of the same audio under other names, which neither
    trains nor evaluates. note: one line for the user."""

    ids: tuple[str, ...]
    twins: tuple[str, ...]
    note: str


def hold_out(utterances: Sequence[Known]) -> HeldOut:
    """Choose among utterances in which something is said.

    Speakers, in order of a hash of their name, until a hundredth of the utterances is held out;
    a speaker with whom it would be more than a tenth is passed over. Where no speaker is small
    enough, or none is named, single utterances, in order of a hash of their id. Audio that many
    ids share is passed over where there is other: with it all of them would be lost to training.

    Raises:
        OmniError: fewer than two utterances.
    """
    spoken = sorted({u.id: u for u in utterances if u.text}.values(), key=lambda u: _hash(u.id))
    n = len(spoken)
    if n < 2:
        raise OmniError(
            "a single utterance can't both train and evaluate",
            where=spoken[0].id if spoken else "",
            mend="extract more, or give --eval-shards",
        )
    wanted = min(max(FEWEST, round(n * SHARE)), n - 1)
    most = min(max(FEWEST, int(n * LARGEST_SHARE)), n - 1)
    rare = _rare(spoken, wanted, most)
    speakers, held = _whole_speakers(spoken, rare, wanted, most)
    if len(_texts(held)) < 2 and len(held) == most:
        speakers, held = [], []  # no room for a second text
    if speakers:
        wanted = max(len(held), min(FEWEST, most))
    single = _singles(rare, held, wanted, most)
    held += single
    ids = {u.id for u in held}
    audio = {u.sha256 for u in held if u.sha256}
    twins = [u.id for u in spoken if u.id not in ids and u.sha256 in audio]
    note = f"no evaluation split: {_what(spoken, speakers, single)} held out by hash"
    if speakers:
        note += f" ({len(held)} utterances)"
    if len(_texts(held)) < 2:
        note += "; they all say the same, so that no gap can be computed"
    if len(twins) > most:
        note += f"; their audio trains as well, under {len(twins)} other ids"
        twins = []
    elif twins:
        note += f"; {len(twins)} more of the same audio left out"
    return HeldOut(tuple(sorted(ids)), tuple(sorted(twins)), note)


def _rare(spoken: Sequence[Known], wanted: int, most: int) -> Sequence[Known]:
    """Those of whose audio there are so few copies that they can all leave training; everything
    where that is too little to judge by."""
    copies = Counter(u.sha256 for u in spoken if u.sha256)
    rare = [u for u in spoken if (copies[u.sha256] - 1) * wanted <= most]
    is_enough = len(rare) >= wanted and len(_texts(rare)) >= min(2, len(_texts(spoken)))
    return rare if is_enough else spoken


def _whole_speakers(
    spoken: Sequence[Known], rare: Sequence[Known], wanted: int, most: int
) -> tuple[list[str], list[Known]]:
    """Speakers with all they say, at most `most` utterances and all of them rare; none may fit. No
    name, no speaker."""
    allowed = Counter(u.speaker for u in rare)
    by_speaker: dict[str, list[Known]] = {}
    for known in spoken:
        by_speaker.setdefault(known.speaker, []).append(known)
    by_speaker.pop("", None)
    chosen: list[str] = []
    held: list[Known] = []
    for speaker in sorted(by_speaker, key=_hash):
        if len(held) >= wanted:
            break
        n = len(by_speaker[speaker])
        if len(held) + n <= most and allowed[speaker] == n:
            chosen.append(speaker)
            held += by_speaker[speaker]
    return chosen, held


def _singles(spoken: Sequence[Known], held: Sequence[Known], wanted: int, most: int) -> list[Known]:
    """Utterances to add until `wanted` are held and two texts differ, as far as there are two."""
    taken = {u.id for u in held}
    left = [u for u in spoken if u.id not in taken]
    single: list[Known] = []
    texts = _texts(held)
    is_sorted = False
    while len(held) + len(single) < most and len(single) < len(left):
        following = left[len(single)]
        if len(texts) == 1 and not is_sorted:  # the next must say something else
            left[len(single) :] = sorted(left[len(single) :], key=lambda u: u.text in texts)
            following, is_sorted = left[len(single)], True
        helps = len(texts) == 1 and following.text not in texts
        if len(held) + len(single) >= wanted and not helps:
            break
        single.append(following)
        texts.add(following.text)
    return single


def _what(spoken: Sequence[Known], speakers: Sequence[str], single: Sequence[Known]) -> str:
    if not speakers:
        return f"{len(single)} of {len(spoken)} utterances"
    n_speakers = len({u.speaker for u in spoken if u.speaker})
    text = f"{len(speakers)} of {n_speakers} speakers"
    return text + (f" and {len(single)} utterances more" if single else "")


def _texts(utterances: Sequence[Known]) -> set[str]:
    return {u.text for u in utterances}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
