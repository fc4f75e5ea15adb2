"""AudioBench-mini: what is committed is what the script plans, can't be guessed, and is heard nowhere else.

.venv/bin/python -m pytest tests/scripts/test_mini.py
"""

import hashlib
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import make_audiobench_mini as mini
import make_demo_corpus as demo
from demo_cast import KNOWN, UNHEARD
from fetch_voices import CACHE
from libri_tree import Clip, write_audio
from mini_questions import questions
from neural import RESERVED, parts
from synthesis import RATE, read_clip

from extract.corpora.choose import Source, find_manifests
from extract.corpora.demo import DEMO_SPLITS, demo_manifest
from extract.corpora.mini import MINI_SPLIT
from extract.corpora.noise import NOISE_SPLITS, noise
from omni.errors import OmniError
from omni.formats.manifest import Manifest
from omni.formats.tasks import Task, Tasks, read_tasks
from tasks import wordings
from tasks.census import census
from tasks.content import content_kinds
from tasks.wordings_voice import SOUND, VOICE_AND

FOLDER = ROOT / "manifests" / "audiobench-mini"


@cache
def _table() -> Tasks:
    return read_tasks(FOLDER / "mini.parquet")


@cache
def _manifest() -> Manifest:
    return find_manifests(Source(MINI_SPLIT))[0]


@cache
def _demo_texts() -> frozenset[str]:
    """Of the corpus that is committed and of both that the script plans."""
    committed = {u.text_norm for split in DEMO_SPLITS for u in demo_manifest(split).utterances}
    planned = {clip.text for clip in demo.plan()}
    return frozenset(committed | planned)


def _pcm(path: Path) -> str:
    return hashlib.sha256(read_clip(path).tobytes()).hexdigest()


def test_eighty_on_words_eighty_on_the_voice_forty_on_sounds_keys_in_balance() -> None:
    table = _table()
    assert table.header["role"] == "eval"
    assert Counter(row.needs for row in table.rows) == {"words": 80, "voice": 80, "sound": 40}
    assert Counter(row.key for row in table.rows) == dict.fromkeys(range(4), 50)
    for kind, found in census(table).kinds.items():
        assert len(set(found.keys)) == 1, f"{kind}: {found.keys}"
    wanted = {f"content/{k}" for k in wordings.CONTENT} - {"content/heard", "content/count"}
    assert {row.kind for row in table.rows if row.needs == "words"} == wanted


def test_nobody_guesses() -> None:
    found = census(_table())
    assert found.alerts == []
    assert all(guess.accuracy <= 0.26 for guess in found.guesses)
    always_a = _with_key(_table(), 0)
    assert any("always A" in alert for alert in census(always_a).alerts)


def _with_key(table: Tasks, key: int) -> Tasks:
    """The same questions with the right option in one place."""

    def moved(row: Task) -> Task:
        wrong = [option for option in row.options if option != row.answer]
        return replace(row, options=(*wrong[:key], row.answer, *wrong[key:]))

    return Tasks(table.header, tuple(map(moved, table.rows)))


def test_what_the_options_are_does_not_tell_which_is_right() -> None:
    """Of questions on voice and sound: each set of options is asked as often with each of them as key."""
    keys: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for row in _table().rows:
        if row.needs != "words":
            keys[row.kind, *sorted(row.options)][row.answer] += 1
    assert len(keys) == 3 + 6 + 1
    assert all(len(set(c.values())) == 1 and len(c) == 4 for c in keys.values())


def test_each_sentence_is_spoken_in_every_class() -> None:
    texts = {u.id: u.text_norm for u in _manifest().utterances}
    heard: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in _table().rows:
        if row.kind.startswith("voice/") or row.kind == "sound/behind":
            heard[row.kind, texts[row.id]].append(row.answer)
    for (kind, _), answers in heard.items():
        assert len(set(answers)) == len(answers) == (6 if kind == "sound/behind" else 4)
    letters = [
        tuple(sorted(r.key for r in _table().rows if texts[r.id] == t))
        for k, t in heard
        if k[0] == "v"
    ]
    assert set(letters) == {(0, 1, 2, 3)}


def test_no_prompt_trains() -> None:
    trains = [
        text
        for kinds in (wordings.CONTENT, wordings.VOICE, wordings.REPEAT, VOICE_AND, SOUND)
        for w in kinds.values()
        for text in w.train
    ]
    words = {f'"{word}"' for slot in demo.GRAMMAR for word in slot}
    for row in _table().rows:
        prompt = row.prompt
        for word in words:
            prompt = prompt.replace(word, '"{word}"')
        assert prompt not in trains, prompt


def test_the_table_is_what_the_script_makes() -> None:
    """But for the prompts, which stay as they were when the wordings of training grow."""
    made = questions(mini.plan())
    assert made.header == _table().header
    for a, b in zip(sorted(made.rows), sorted(_table().rows), strict=True):
        assert (a.id, a.kind, a.answer, a.options, a.needs, a.licence) == (
            b.id, b.kind, b.answer, b.options, b.needs, b.licence,
        )  # fmt: skip


def test_extraction_lists_every_clip_with_its_labels() -> None:
    manifest = _manifest()
    assert manifest.role == "eval"
    assert all(u.is_complete for u in manifest.utterances)
    assert {u.id for u in manifest.utterances} == {row.id for row in _table().rows}
    planned = {one.clip.id: one.clip for one in mini.plan()}
    for u in manifest.utterances:
        assert (u.pace, u.pitch, u.accent, u.sound) == planned[u.id].labels
        assert u.text_norm == planned[u.id].text
        assert bool(u.sex) == bool(u.text_norm)
    with pytest.raises(OmniError, match="can't be changed"):
        find_manifests(Source(MINI_SPLIT, role="train"))


def test_no_split_of_the_project_says_its_sentences() -> None:
    said = {u.text_norm for u in _manifest().utterances} - {""}
    assert len(said) == 80 + 20 + 4
    assert not said & _demo_texts()
    assert all(demo.is_for_mini(text) for text in said)
    assert not any(demo.is_for_mini(clip.text) for clip in demo.plan())


def test_no_corpus_has_its_voices_and_none_is_reserved() -> None:
    ours = {part for voice in mini.CAST.values() for part in parts(voice.name)}
    theirs = {
        part
        for voice, _ in [*KNOWN.values(), *UNHEARD.values()]
        if voice.engine == "kokoro"
        for part in parts(voice.name)
    }
    known = {
        p for voice, _ in KNOWN.values() if voice.engine == "kokoro" for p in parts(voice.name)
    }
    unheard = {v.name for v, _ in UNHEARD.values()}
    assert not ours & theirs
    assert not known & unheard
    assert not (ours | theirs) & RESERVED
    with pytest.raises(OmniError, match="reserved"):
        parts("af_nova+af_heart")


def test_no_recording_of_it_is_in_a_training_split_and_none_is_twice() -> None:
    root = FOLDER / "LibriSpeech"
    ours = [_pcm(root / u.audio) for u in _manifest().utterances]
    assert len(set(ours)) == len(ours) == 200
    theirs = {
        _pcm(Path(m.root) / u.audio) for m in map(demo_manifest, DEMO_SPLITS) for u in m.utterances
    }
    for split, n in NOISE_SPLITS.items():
        theirs |= {hashlib.sha256(noise(split, i)[1].tobytes()).hexdigest() for i in range(n)}
    assert len(theirs) == 638
    assert not theirs & set(ours)


def test_clips_are_whole_and_small() -> None:
    silent = 0
    for u in _manifest().utterances:
        wave = read_clip(FOLDER / "LibriSpeech" / u.audio)
        assert 1.3 < len(wave) / RATE < 6.5, u.id
        peak = float(np.abs(wave).max())
        if u.sound == "silence" and not u.text_norm:
            silent += 1
            assert peak < 0.01
        else:
            assert 0.4 < peak < 0.9, f"{u.id}: {peak}"
    assert silent == 4
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size < 3_300_000


def test_every_kind_of_content_has_wordings_to_judge_by() -> None:
    assert all(words for words, _, _ in content_kinds("eval").values())


@pytest.mark.slow
@pytest.mark.skipif(not CACHE.is_dir(), reason="scripts/fetch_voices.py was not run")
def test_the_script_makes_the_committed_samples_again(tmp_path: Path) -> None:
    kinds: dict[str, Clip] = {}
    for one in mini.plan():
        kinds.setdefault(
            f"{one.kind} {one.clip.sound}" if one.clip.voice is None else one.kind[:5], one.clip
        )
    for clip in kinds.values():
        write_audio(clip, tmp_path)
        committed, again = (read_clip(p / clip.path) for p in (FOLDER / "LibriSpeech", tmp_path))
        # To the sample on one machine; another processor may round the network otherwise.
        assert len(committed) == len(again), clip.id
        assert clip.sound or np.corrcoef(committed, again)[0, 1] > 0.99, clip.id
