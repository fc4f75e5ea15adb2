"""The report's section on a table of questions: the figures of omni-eval, a picture, ten to listen to.

.venv/bin/python -m pytest tests/analyze/test_questions.py
"""

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import analyze_kit as kit
import numpy as np
import pytest
import soundfile
import torch
from adapters_kit import loud_lora
from audio_kit import hiss
from tasks_kit import header

from analyze.examine import Request, examine, gather, set_up
from analyze.measure.listen import LONGEST, clips
from analyze.page.html import RunView, to_html, to_json
from analyze.page.questions import add_sounds
from cli import eval as cli_eval
from cli import pca
from omni import runs
from omni.errors import OmniError
from omni.formats.manifest import Utterance, make_manifest, write_manifest
from omni.formats.shards import Sample
from omni.formats.tasks import Task, make_tasks, write_tasks

SAMPLES = kit.speech(14, 11, "toy-heldout")
HOSTILE = '"</script><img src=x>'


def tasks(samples: list[Sample]) -> list[Task]:
    """What each said first, the keys dealt; a prompt that a page must not obey."""
    found = []
    for i, sample in enumerate(samples):
        said = sample.meta["text_norm"].split()
        options = [word for word in kit.WORDS if word not in said][:3]
        options.insert(i % 4, said[0])
        prompt = "What came first?" if i else f"What came first? {HOSTILE}"
        needs = "words" if i % 3 else "voice"
        kind = "content/first" if i % 3 else "voice/pace"
        found.append(
            Task(sample.meta["id"], "toy-heldout", kind, prompt, said[0], tuple(options), needs, "template", "MIT")  # type: ignore[arg-type]
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that hears, its shards, a table about them, and the sound of all but one of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("world")
    kit.write_split(root / "shards", "toy-heldout", SAMPLES)
    kit.write_run(root / "good", root / "shards", *kit.teach())
    write_tasks(make_tasks(header("eval"), tasks(SAMPLES)), root / "mini.parquet")
    rows = []
    for i, sample in enumerate(SAMPLES):
        soundfile.write(root / f"{i}.wav", hiss(16_000, i), 16_000)
        rows.append(Utterance(sample.meta["id"], audio=f"{i}.wav"))
    (root / "3.wav").unlink()
    manifest = make_manifest("toy-heldout", root, rows)
    (root / "manifests").mkdir()
    write_manifest(manifest, root / "manifests" / "toy-heldout.parquet")
    yield root
    torch.set_num_threads(threads)


def request(world: Path, **changes: object) -> Request:
    base = Request(points=200, utterances=8, tasks=[str(world / "mini.parquet")])
    return replace(base, manifests=str(world / "manifests"), **changes)


@pytest.fixture(scope="module")
def view(world: Path) -> RunView:
    return examine(runs.load_run(world / "good"), request(world))


def test_its_figures_are_those_of_the_evaluation(
    world: Path, view: RunView, tmp_path: Path
) -> None:
    """All of them, in report.json as in `omni-eval --json`."""
    args = f"{world}/good --tasks {world}/mini.parquet --cascade off --json {tmp_path}/a.json"
    assert cli_eval.main(args.split()) == 0
    theirs = json.loads((tmp_path / "a.json").read_text())["tasks"]["mini"]
    ours = json.loads(to_json([view]))["runs"][0]["tasks"]["mini"]
    assert ours == theirs
    assert ours["all"]["n"] == 14


def test_the_page_says_what_was_measured(view: RunView) -> None:
    html, figures = to_html([view]), view.tables[0].figures
    section = html[html.index('<section id="questions"') : html.index('<section id="figures"')]
    for group in ("all", "words", "voice"):
        assert figures[group]["verdict"].replace("'", "&#39;") in section  # type: ignore[literal-required]
    for control in figures["all"]["controls"].values():
        assert f"{100 * control['accuracy']:.1f}\u00a0%" in section
    low, high = figures["all"]["interval"]
    assert f"{100 * low:.1f}\u00a0% to {100 * high:.1f}\u00a0%" in section
    assert "It transcribes instead of answering" in section
    assert '<a href="#questions">' in html
    assert HOSTILE not in html
    assert section.count("key-option") == 10
    assert section.count("<tr") - 1 >= 10


def test_the_picture_is_a_picture_a_table_and_words(view: RunView) -> None:
    figure = view.tables[0].figure
    assert figure.table.head == ["questions", "condition", "n", "right", "low", "high"]
    shares = {(str(r[0]), str(r[1])): r[3] for r in figure.table.rows}
    figures = view.tables[0].figures
    assert shares["all", "right audio"] == figures["all"]["accuracy"]
    assert shares["voice", "noise"] == figures["voice"]["controls"]["noise"]["accuracy"]
    assert len(figure.table.rows) == 3 * 5
    assert "Right audio: all" in figure.alt
    assert figure.svg() == figure.svg()
    assert figure.svg().startswith('<svg aria-hidden="true"')
    html = to_html([view])
    assert f'<div role="img" aria-label="{figure.alt}">' in html
    assert html.count('id="fig-answers-mini"') == 1
    assert figure in view.pictures
    assert figure.key in json.loads(to_json([view]))["runs"][0]["figures"]


def test_ten_can_be_listened_to(world: Path, view: RunView) -> None:
    """From the worst to the best; of one there is no sound."""
    shown = view.tables[0].listened
    right = [sum(one.question["right"]) for one in shown]
    assert right == sorted(right)
    assert len(shown) == 10
    ids = [one.question["id"] for one in shown]
    html = to_html([view])
    sounds = re.findall(r'<audio [^>]*src="data:audio/flac;base64,([^"]+)"></audio>', html)
    assert len(sounds) == sum(key != SAMPLES[3].meta["id"] for key in ids)
    at = int(ids[0].rsplit("-", 1)[1])
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert rate == 16_000
    assert wave == pytest.approx(soundfile.read(world / f"{at}.wav")[0], abs=1e-4)
    assert "<!--sound" not in html
    assert re.search(r"Content-Security-Policy[^>]*media-src data:", html)


def test_sound_ends_where_the_page_would_grow_too_large(view: RunView) -> None:
    tables = [view.tables]
    page = "".join(f"<!--sound of 0-0-{i}-->" for i in range(10))
    whole = add_sounds(page, tables)
    n = whole.count("<audio")
    assert n >= 9
    limit = len(whole) // 2
    half = add_sounds(page, tables, limit)
    assert 0 < half.count("<audio") < n
    assert half.count("left out") == n - half.count("<audio")
    assert (
        len(half.replace('<span class="muted">left out, lest the page grow too large</span>', ""))
        <= limit
    )


def test_clips_are_a_stretch_of_what_the_manifest_says(tmp_path: Path) -> None:
    """Three utterances of one file, one of them too long for a page; a file that is none."""
    samples = {s.meta["id"]: s for s in kit.speech(4, 1, "toy-heldout")}
    ids = sorted(samples)
    wave = hiss(25 * 16_000)
    soundfile.write(tmp_path / "long.wav", wave, 16_000, "FLOAT")
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    rows = [
        Utterance(ids[0], audio="long.wav", start=1.5, length=0.5),
        Utterance(ids[1], audio="long.wav"),
        Utterance(ids[2], audio="long.wav", start=24.0),
        Utterance(ids[3], audio="bad.wav"),
    ]
    write_manifest(make_manifest("toy-heldout", tmp_path, rows), tmp_path / "toy-heldout.parquet")
    found = clips(samples, tmp_path)
    heard = {key: soundfile.read(io.BytesIO(data))[0] for key, data in found.items()}
    assert list(found) == ids[:3]
    assert heard[ids[0]] == pytest.approx(wave[24_000:32_000], abs=1e-4)
    assert len(heard[ids[1]]) == LONGEST * 16_000
    assert len(heard[ids[2]]) == 16_000
    assert clips(samples, tmp_path) == found
    assert clips(samples, tmp_path / "none") == {}


def test_equal_bytes_and_a_page_without_questions(world: Path, view: RunView) -> None:
    run = runs.load_run(world / "good")
    again = examine(run, request(world))
    assert to_html([again]) == to_html([view])
    assert to_json([again]) == to_json([view])
    both = to_html([view, again])
    ids = re.findall(r'\bid="([^"]+)"', both)
    assert {"fig-r0-answers-mini", "fig-r1-answers-mini"} < {*ids}
    assert len(ids) == len({*ids})
    none = replace(view, tables=[])
    assert "What it answers" not in to_html([none])
    assert json.loads(to_json([none]))["runs"][0]["tasks"] == {}


def test_the_command_says_the_verdict(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = f"{tmp_path}/r.html --run {world}/good --tasks {world}/mini.parquet --utterances 8 --points 99"
    assert pca.main(args.split()) == 0
    assert "good, mini: " in capsys.readouterr().out
    assert pca.main(args.replace("mini.parquet", "none.parquet").split()) == 1
    assert "can't be read" in capsys.readouterr().err


def test_what_is_in_no_shard_is_refused(world: Path, tmp_path: Path) -> None:
    more = [*SAMPLES, *kit.speech(1, 2, "gone")]
    write_tasks(make_tasks(header("eval"), tasks(more)), tmp_path / "t.parquet")
    with pytest.raises(OmniError, match="in no shard, gone-0000 among them"):
        examine(runs.load_run(world / "good"), request(world, tasks=[str(tmp_path / "t.parquet")]))


def test_the_trained_wear_adapters_and_the_untrained_don_t(world: Path, tmp_path: Path) -> None:
    """Before the first step there were none. What it lacks without is what the bare run has."""
    bare = gather(set_up(runs.load_run(world / "good"), request(world)), 0)
    run = kit.write_run(tmp_path / "worn", world / "shards", *kit.teach())
    lm, _ = kit.demo_lm()
    lora = loud_lora(lm)
    config = json.loads((run.path / "config.json").read_text())
    config["lora"] = {
        "rank": lora.rank, "alpha": lora.alpha, "dropout": 0.0, "everywhere": False,
        "targets": list(lora.targets),
    }  # fmt: skip
    (run.path / "config.json").write_text(json.dumps(config))
    runs.save_adapters(run.path, "best", lora, lm.fingerprint())
    setting = set_up(runs.load_run(run.path), request(world))
    worn = gather(setting, 0)
    assert worn.evaluated["trained"]["ce"] != bare.evaluated["trained"]["ce"]
    assert worn.evaluated["untrained"] == bare.evaluated["untrained"]
    for name, same in (("untrained", True), ("text", True), ("trained", False)):
        a, b = worn.lenses[name].states[-1], bare.lenses[name].states[-1]
        assert np.array_equal(a, b) == same, name
    assert setting.lm.lora is not None
    view = examine(runs.load_run(run.path), request(world))
    kept = view.tables[0].figures["text"]
    assert (kept["n"], kept["identical"]) == (14, True)
    assert "every score is the same to the bit" in to_html([view])
