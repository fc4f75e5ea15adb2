"""The table of AudioBench-mini: each clip's question, with options that are hard and keys in balance.

Those on words are made by the rules of `tasks/`, in the wordings that no table for training holds.
Must not know how a clip is spoken.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from make_demo_corpus import sentences

from omni.errors import OmniError
from omni.formats.tasks import (
    LETTERS,
    TASKS_SCHEMA,
    Input,
    Needs,
    Task,
    Tasks,
    make_tasks,
    write_tasks,
)
from tasks.census import census, lines
from tasks.content import Draft, content_kinds
from tasks.corpus import Corpus
from tasks.dice import Dice
from tasks.sources import Heard
from tasks.wordings import Wordings
from tasks.wordings_voice import SEXES, SOUND, SOUNDS, VOICE_AND

if TYPE_CHECKING:
    from make_audiobench_mini import Asked

SEED = 1  # of twelve that were tried, its guesses are the nearest to chance
_SENTENCES = 2_000  # of the grammar, dealt evenly: no word is rarer than its rivals
_TRIES = 500  # throws until a question has three good wrong options
KOKORO, FONT, OURS = "Apache-2.0", "GPL-2.0", "MIT"


def write_questions(asked: Sequence["Asked"], path: Path) -> list[str]:
    """Write the table; returns its census as lines of text.

    Raises:
        OmniError: the census finds something wrong with it.
    """
    table = questions(asked)
    found = census(table)
    if found.alerts:
        raise OmniError("; ".join(found.alerts), str(path), "choose another SEED")
    write_tasks(table, path)
    return lines(found)


def questions(asked: Sequence["Asked"]) -> Tasks:
    """The table: a row for each clip, each letter the key of as many rows of a kind as any other."""
    by_kind: defaultdict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        by_kind[one.kind].append(one)
    rows = [row for kind, mine in sorted(by_kind.items()) for row in _rows(kind, mine)]
    return make_tasks(
        {
            "schema": TASKS_SCHEMA,
            "role": "eval",
            "seed": SEED,
            "shares": {name: n / len(rows) for name, n in _shares(rows).items()},
            "shuffled": False,
            "inputs": [_input(asked)],
        },
        rows,
    )


def licence(one: "Asked") -> str:
    """Of what is heard: the voice's and the sound's."""
    clip = one.clip
    sound = FONT if clip.sound and clip.sound.preset >= 0 else OURS
    if clip.voice is None:
        return sound
    return KOKORO if sound == OURS else f"{KOKORO} and {sound}"


def _rows(kind: str, asked: Sequence["Asked"]) -> list[Task]:
    """One kind's. The letters are dealt in fours; within a sentence that is spoken in four classes
    each clip has another."""
    rows: list[Task] = []
    letters: list[int] = []
    for i, one in enumerate(sorted(asked, key=lambda one: (one.clip.text, one.clip.id))):
        draft = _draft(one, kind)
        if i % len(LETTERS) == 0:
            letters = Dice(SEED, "place", kind, i).shuffled(range(len(LETTERS)))
        dice = Dice(SEED, "row", kind, one.clip.id)
        options = dice.shuffled(draft.wrong)
        options.insert(letters[i % len(LETTERS)], draft.answer)
        prompt = dice.pick(_wordings(kind)).replace("{word}", draft.word)
        rows.append(
            Task(one.clip.id, one.clip.split, kind, prompt, draft.answer, tuple(options),
                _needs(kind), "template", licence(one))
        )  # fmt: skip
    return rows


def _draft(one: "Asked", kind: str) -> Draft:
    """What is right and what is wrong.

    Raises:
        OmniError: a sentence that this can't be asked of.
    """
    if one.answer:
        wrong = tuple(_in_words(kind, option) for option in one.options if option != one.answer)
        return Draft("", _in_words(kind, one.answer), wrong)
    clip = one.clip
    sex = clip.voice.sex if clip.voice else ""
    heard = Heard(clip.id, clip.split, clip.text, str(clip.speaker), sex, KOKORO)
    _, maker, _ = content_kinds("eval")[kind]
    for turn in range(_TRIES):
        draft = maker(heard, _corpus(), Dice(SEED, kind, clip.id, turn), True)
        if draft is not None:
            return draft
    raise OmniError(f"no question of {kind}", clip.id)


def _in_words(kind: str, option: str) -> str:
    """ "M fast" as "a man, fast"; a sound by its name."""
    if kind.startswith("sound/"):
        return SOUNDS[option]
    sex, way = option.split()
    return f"{SEXES[sex]}, {way}"


def _wordings(kind: str) -> tuple[str, ...]:
    share, name = kind.split("/")
    if share == "content":
        return content_kinds("eval")[kind][0]
    which: dict[str, Wordings] = VOICE_AND if share == "voice" else SOUND
    return which[name].of("eval")


def _needs(kind: str) -> Needs:
    needs: dict[str, Needs] = {"content": "words", "voice": "voice", "sound": "sound"}
    return needs[kind.split("/")[0]]


def _shares(rows: Sequence[Task]) -> dict[str, int]:
    return dict(sorted(Counter(row.kind.split("/")[0] for row in rows).items()))


def _input(asked: Sequence["Asked"]) -> Input:
    """The clips: of their ids, texts and labels."""
    whole = hashlib.sha256()
    for clip in (one.clip for one in asked):
        whole.update(json.dumps([clip.id, clip.text, *clip.labels]).encode() + b"\n")
    return {"name": asked[0].clip.split, "n": len(asked), "sha256": whole.hexdigest()}


_grammar: list[Corpus] = []


def _corpus() -> Corpus:
    """What the grammar's words are like."""
    if not _grammar:
        deal = sentences(np.random.default_rng(SEED))
        texts = [next(deal) for _ in range(_SENTENCES)]
        _grammar.append(Corpus(Heard(str(i), "", text, "", "", "") for i, text in enumerate(texts)))
    return _grammar[0]
