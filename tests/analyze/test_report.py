"""The report from run folders to files: what it says, that it repeats itself, how it fails.

.venv/bin/pytest tests/analyze/test_report.py
"""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import analyze_kit as kit
import numpy as np
import pytest
from places import ROOT

from analyze.draw import clouds as figures
from analyze.examine import Request, examine, gather, set_up
from analyze.measure import table as numbers
from analyze.measure.sample import choose
from analyze.page import export
from analyze.page.html import RunView, difference, to_html, to_json
from analyze.report import make_report
from cli.pca import main
from omni import runs
from omni.errors import OmniError
from omni.evaluation.evaluate import evaluate

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)> & "it\'s" $a^2$'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out shards and two runs: "good" hears, "deaf" was fitted to wrong pairs."""
    root = tmp_path_factory.mktemp("world")
    kit.write_split(root / "shards", "toy-heldout", kit.speech(36, 11, "toy-heldout"))
    kit.write_run(root / "good", root / "shards", *kit.teach())
    kit.write_run(root / "deaf", root / "shards", *kit.teach(shuffled=True), shuffled=True)
    return root


@pytest.fixture(scope="module")
def good(world: Path) -> RunView:
    return examine(runs.load_run(world / "good"), Request(points=600))


@pytest.fixture(scope="module")
def deaf(world: Path) -> RunView:
    return examine(runs.load_run(world / "deaf"), Request(points=600))


def number(view: RunView, key: str) -> numbers.Number:
    return next(n for n in view.numbers if n.key == key)


def test_a_run_that_hears_is_said_to_listen(good: RunView) -> None:
    assert good.verdict.level == "listens"
    assert good.verdict.headline == "The model is listening"
    assert number(good, "gap_shuffled").trained.low > 3
    assert number(good, "nearest_precision").trained.value > 0.9
    assert number(good, "retrieval_audio_text_1").trained.value > 0.9
    assert number(good, "path").trained.low > 0.2


def test_a_run_on_shuffled_pairs_is_called_not_listening(deaf: RunView) -> None:
    assert deaf.verdict.level == "deaf"
    assert deaf.verdict.headline == "The model is not listening"
    assert any("shuffled pairs" in alert.text for alert in deaf.alerts)
    assert number(deaf, "path").trained.low < 0.05


def test_the_untrained_control_shows_no_alignment(good: RunView) -> None:
    """By pairing: chance, zero, or what a wrong transcript gives."""
    untrained = {n.key: n.untrained for n in good.numbers if n.untrained is not None}
    assert abs(untrained["gap_shuffled"].value) < 0.2
    assert untrained["wer"].value > 0.9
    assert untrained["nearest_precision"].value < 0.1
    assert abs(untrained["path"].value) < 0.05
    assert "value_path" not in untrained  # zero-init: there is nothing to measure
    for way in ("audio_text", "text_audio"):
        for k in (1, 5):
            found = number(good, f"retrieval_{way}_{k}")
            assert found.chance is not None
            assert untrained[found.key].low <= found.chance + 0.02
    assert untrained["cka"].value < 0.1
    assert untrained["cka"].high < number(good, "cka").trained.low


def test_shuffled_pairs_show_no_alignment_either(good: RunView) -> None:
    assert abs(number(good, "gap_shuffled").shuffled.value) < 1  # type: ignore[union-attr]
    assert abs(number(good, "cka").shuffled.value) < 0.3  # type: ignore[union-attr]
    assert number(good, "modality_gap").shuffled is None
    assert number(good, "domain_auc").shuffled is None


def test_every_number_has_an_interval_around_it_and_a_reading(good: RunView) -> None:
    assert len(good.numbers) >= 14
    for n in good.numbers:
        assert n.trained.low <= n.trained.value <= n.trained.high, n.key
        assert n.reading.endswith((".", ".")), n.key
        assert n.n == 36, n.key
    docs = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"`{n.key}`" in docs for n in good.numbers)


def test_figures_agree_with_the_evaluation(world: Path, good: RunView) -> None:
    """The gap, CE and WER are those of omni.evaluation.evaluate on the same split, not a second opinion."""
    setting = set_up(runs.load_run(world / "good"), Request())
    found = evaluate(setting.lm, setting.tok, setting.trained, setting.samples, setting.template)
    assert number(good, "gap_shuffled").trained.value == pytest.approx(found["gap_shuffled"])
    assert number(good, "wer").trained.value == pytest.approx(found["wer"])
    assert number(good, "token_accuracy").trained.value == pytest.approx(found["token_accuracy"])
    heard = {u["id"]: u["hypothesis"] for u in good.utterances}
    assert heard == {u["id"]: u["hypothesis"] for u in found["utterances"]}


def test_html_is_equal_byte_for_byte(world: Path, tmp_path: Path) -> None:
    request = Request(utterances=16, points=200)
    run = runs.load_run(world / "good")
    first = make_report(tmp_path / "a.html", [run], request)
    second = make_report(tmp_path / "b.html", [run], request)
    assert first.html.read_bytes() == second.html.read_bytes()
    assert first.json.read_bytes() == second.json.read_bytes()


def test_json_holds_the_page_s_numbers(good: RunView) -> None:
    document = json.loads(to_json([good]))
    run = document["runs"][0]
    assert run["verdict"]["headline"] in to_html([good])
    for n in good.numbers:
        assert run["numbers"][n.key]["trained"]["value"] == pytest.approx(n.trained.value)
    assert set(run["figures"]) == {figure.key for figure in good.figures}
    assert run["provenance"]["LM hash"] == kit.demo_lm()[0].fingerprint()


class Outline(HTMLParser):
    """Tags with their attributes, and scripts' texts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("several", [False, True])
def test_one_file_that_asks_for_nothing(good: RunView, deaf: RunView, several: bool) -> None:
    page = to_html([good, deaf] if several else [good])
    outline = Outline()
    outline.feed(page)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = attributes.get(name) or ""
            assert target.startswith(("#", "data:image/png;base64,")) or not target, (tag, target)
    assert "url(http" not in page
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert len(page) < 4_000_000
    policy = next(a["content"] for t, a in outline.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_each_picture_has_caption_alternative_and_table(good: RunView) -> None:
    keys = [figure.key for figure in good.figures]
    assert keys == [
        "joint", "centred", "text-axes", "values", "value-words", "words", "value-matrices", "matrices",
        "layers", "lens", "distributions", "variance", "encoder", "training",
    ]  # fmt: skip
    for figure in good.figures:
        assert len(figure.caption) > 60, figure.key
        assert len(figure.alt) > 30, figure.key
        assert figure.table.rows, figure.key
        assert {len(row) for row in figure.table.rows} == {len(figure.table.head)}, figure.key
    joint = good.figures[0]
    assert len(joint.panels) == 4
    assert all(len(p.xy) == len(good.sets[p.points].token) for p in joint.panels)
    labels = re.findall(r"PC \d \(([\d.]+)\u00a0%\)", joint.svg())
    assert len(labels) == 4
    assert 0 < float(labels[0]) <= 100


def test_drawn_points_lie_where_the_page_thinks(good: RunView) -> None:
    """Viewbox coordinates of hit targets fall inside the drawing, in the right half each."""
    joint = good.figures[0]
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', joint.svg())[1].split())  # type: ignore[index]
    for panel, (low, high) in zip(
        joint.panels, [(0, 0.5), (0, 0.5), (0.5, 1), (0.5, 1)], strict=True
    ):
        assert panel.xy[:, 0].min() > low * width
        assert panel.xy[:, 0].max() < high * width
        assert panel.xy[:, 1].min() > 0
        assert panel.xy[:, 1].max() < height


def test_same_axes_before_and_after(good: RunView) -> None:
    """The text cloud is at the same place in both panels of the joint PCA."""
    before, _, after, _ = good.figures[0].panels
    shift = after.xy - before.xy
    assert np.ptp(shift[:, 0]) < 1e-6
    assert np.ptp(shift[:, 1]) < 1e-6
    assert abs(shift[:, 1]).max() < 1e-6


def test_hostile_transcripts_stay_text(world: Path, tmp_path: Path) -> None:
    kit.write_split(tmp_path, "toy-heldout", kit.speech(8, 4, "toy-<b>x", text=HOSTILE))
    view = examine(runs.load_run(world / "good"), Request(shards=[str(tmp_path)], points=100))
    page = to_html([view])
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    export.write_projector(tmp_path / "tsv", [view])
    lines = (tmp_path / "tsv" / "metadata.tsv").read_text().splitlines()
    assert {line.count("\t") for line in lines} == {5}


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_utterances_gives_a_correct_page(world: Path, tmp_path: Path, n: int) -> None:
    kit.write_split(tmp_path, "toy-heldout", kit.speech(n, 21, "few", speakers=1))
    view = examine(runs.load_run(world / "good"), Request(shards=[str(tmp_path)], points=100))
    texts = " ".join(alert.text for alert in view.alerts)
    assert f"Only {n} utterance" in texts
    assert "One speaker only" in texts
    assert (view.verdict.level == "unknown") == (n == 1)
    page = to_html([view])
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"base64,[^\"']+", "", page).lower())
    assert json.loads(to_json([view]))["runs"][0]["numbers"]["wer"]["n"] == n


def test_bad_input_is_one_clear_line(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    out = str(tmp_path / "r.html")

    def error_of(*argv: str) -> str:
        assert main([out, *argv]) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        return next(line for line in lines if line.startswith("error: "))

    assert "no training run" in error_of("--run", str(tmp_path / "nowhere"))
    empty = runs.load_run(world / "good")
    runs.create_run(tmp_path / "unborn", {k: v for k, v in empty.config.items() if k != "schema"}, empty.provenance)  # fmt: skip
    assert "no such checkpoint" in error_of("--run", str(tmp_path / "unborn"))
    foreign = {**kit.CONFIG, "encoder": "another"}
    kit.write_split(tmp_path / "foreign", "toy-heldout", kit.speech(4, 1, "x"), config=foreign)
    told = error_of("--run", str(world / "good"), "--shards", str(tmp_path / "foreign"))
    assert "fingerprint" in told
    kit.write_split(tmp_path / "mute", "toy-heldout", kit.speech(2, 1, "x", text=" "))
    told = error_of("--run", str(world / "good"), "--shards", str(tmp_path / "mute"))
    assert "no utterance with a transcript" in told
    assert not Path(out).exists()


def test_another_lm_is_refused(world: Path, tmp_path: Path) -> None:
    run = runs.load_run(world / "good")
    config = {k: v for k, v in run.config.items() if k != "schema"}
    other = runs.create_run(tmp_path / "other", config, {**run.provenance, "lm_hash": "0" * 64})
    for which in ("init", "best"):
        runs.save_projector(other.path, which, run.projector(which))
    with pytest.raises(OmniError, match="LM"):
        set_up(other, Request())


def test_a_run_in_progress_uses_its_last_checkpoint(world: Path, tmp_path: Path) -> None:
    run = runs.load_run(world / "good")
    config = {k: v for k, v in run.config.items() if k != "schema"}
    young = runs.create_run(tmp_path / "young", config, run.provenance)
    for which in ("init", "last"):
        runs.save_projector(young.path, which, run.projector(which))
    view = examine(young, Request(utterances=8, points=80))
    assert dict(view.facts)["checkpoint"] == "projector-last"
    assert any("still going" in alert.text for alert in view.alerts)
    assert "training" not in {figure.key for figure in view.figures}


def test_training_shards_are_told_of(world: Path, tmp_path: Path) -> None:
    kit.write_split(tmp_path, "toy-train", kit.speech(8, 2, "t"), role="train")
    view = examine(runs.load_run(world / "good"), Request(shards=[str(tmp_path)], points=80))
    assert view.alerts[0].kind == "wrong"
    assert "training split" in view.alerts[0].text


def test_choice_is_balanced_and_seeded() -> None:
    samples = kit.speech(30, 1, "x", speakers=3)[:24] + kit.speech(3, 2, "rare", speakers=1)
    speakers = {s.key: s.meta["speaker"] for s in samples}
    pairs = list(speakers.items())
    keys = choose(pairs, 12, seed=0)
    counts = [sum(speakers[k] == v for k in keys) for v in ("voice0", "voice1", "voice2")]
    assert counts == [4, 4, 4]
    assert keys == choose(reversed(pairs), 12, seed=0)
    assert keys != choose(pairs, 12, seed=1)
    assert choose(pairs, 5, seed=0) == keys[:5]


def test_what_the_run_held_out_is_looked_at(world: Path, tmp_path: Path) -> None:
    samples = kit.speech(24, 2, "t")
    kit.write_split(tmp_path / "shards", "toy-train", samples, role="train")
    run = runs.load_run(world / "good")
    config = {**run.config, "train": {**run.config["train"], "shards": [str(tmp_path / "shards")]}}
    held_out = sorted(s.meta["id"] for s in samples)[::2]
    changed = runs.Run(run.path, config, {**run.provenance, "held_out": held_out})
    setting = set_up(changed, Request(points=80))
    assert sorted(s.meta["id"] for s in setting.samples) == held_out
    assert setting.held_out
    assert len(set_up(runs.Run(run.path, config, run.provenance), Request()).samples) == 24


def test_difference_marks_words() -> None:
    assert difference("a b c", "a x c d") == [
        ("same", "a"), ("missed", "b"), ("wrong", "x"), ("same", "c"), ("wrong", "d"),
    ]  # fmt: skip
    assert difference("a", "") == [("missed", "a")]


def test_exports(good: RunView, tmp_path: Path) -> None:
    written = export.write_png(tmp_path / "png", [good])
    assert len(written) == len(good.figures)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    export.write_projector(tmp_path / "tsv", [good])
    vectors = np.loadtxt(tmp_path / "tsv" / "vectors.tsv", delimiter="\t")
    lines = (tmp_path / "tsv" / "metadata.tsv").read_text().splitlines()
    assert len(lines) == len(vectors) + 1
    assert vectors.shape[1] == kit.demo_lm()[0].config.n_embd
    # The LM's norm has been applied: every row has RMS 1.
    assert np.sqrt((vectors**2).mean(1)) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_wandb_offline(good: RunView, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = runs.load_run(world / "good")
    export.log_wandb([good], [run], "offline")
    kept = list((run.path / "wandb").glob("offline-run-*"))
    assert len(kept) == 1
    pictures = list(kept[0].glob("files/media/images/report/*.png"))
    assert len(pictures) == len(good.figures)


@pytest.mark.slow
def test_five_thousand_points_stay_below_four_megabytes(world: Path, tmp_path: Path) -> None:
    kit.write_split(tmp_path, "toy-heldout", kit.speech(500, 31, "many"))
    run = runs.load_run(world / "good")
    request = Request(shards=[str(tmp_path)], utterances=500, points=5000)
    setting = set_up(run, request)
    evidence = gather(setting, 0)
    assert len(figures.pick(evidence, 5000).text) > 1800
    report = make_report(tmp_path / "r.html", [run], request)
    assert report.html.stat().st_size < 4_000_000
    assert all(math.isfinite(n.trained.value) for n in report.views[0].numbers)
