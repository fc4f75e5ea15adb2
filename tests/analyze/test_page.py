"""The page in a real browser, with the network blocked: pointing, choosing, sorting, themes.

Needs Debian's chromium (or CHROMIUM=/path); skips without it unless CI_REQUIRE_BROWSER=1. The
accessibility pass needs axe-core (`npm install axe-core`, or AXE_CORE=/path/to/axe.min.js).

.venv/bin/pytest tests/analyze/test_page.py
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import analyze_kit as kit
import pytest
import soundfile
from audio_kit import hiss
from places import ROOT
from tasks_kit import header

from analyze.examine import Request
from analyze.report import make_report
from omni.formats.manifest import Utterance, make_manifest, write_manifest
from omni.formats.tasks import Task, make_tasks, write_tasks

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
AXE = Path(os.environ.get("AXE_CORE", ROOT / "node_modules/axe-core/axe.min.js"))
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists() and os.environ.get("CI_REQUIRE_BROWSER") != "1",
    reason=f"no browser at {CHROMIUM}",
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    samples = kit.speech(24, 11, "toy-heldout")
    kit.write_split(root / "shards", "toy-heldout", samples)
    run = kit.write_run(root / "good", root / "shards", *kit.teach())
    tasks = [
        Task(s.meta["id"], "toy-heldout", "content/first", "First?", s.meta["text_norm"].split()[0],
             (s.meta["text_norm"].split()[0], "x", "y", "z"), "words", "template", "MIT")
        for s in samples[:8]
    ]  # fmt: skip
    write_tasks(make_tasks(header("eval"), tasks), root / "mini.parquet")
    soundfile.write(root / "a.wav", hiss(8_000), 16_000)
    sounds = [Utterance(s.meta["id"], audio="a.wav") for s in samples]
    write_manifest(make_manifest("toy-heldout", root, sounds), root / "toy-heldout.parquet")
    asked = Request(points=500, tasks=[str(root / "mini.parquet")], manifests=str(root))
    return make_report(root / "report.html", [run], asked).html


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page opened from disk with the network off; what it asked for and complained of."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1200, "height": 900}, **options}
        )
        self.context.set_offline(True)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def plot(self, key: str) -> Any:
        """The canvas over one picture, scrolled to the middle of the window."""
        canvas = self.page.locator(f"#fig-{key} canvas")
        canvas.evaluate("node => node.scrollIntoView({block: 'center'})")
        return canvas

    def ink(self, key: str) -> int:
        """How many pixels the overlay of a picture has drawn."""
        return self.page.locator(f"#fig-{key} canvas").evaluate(
            """c => {
              const copy = new OffscreenCanvas(c.width, c.height);
              const context = copy.getContext("2d", { willReadFrequently: true });
              context.drawImage(c, 0, 0);
              const pixels = context.getImageData(0, 0, c.width, c.height).data;
              return pixels.reduce((n, v, i) => n + (i % 4 === 3 && v > 0 ? 1 : 0), 0);
            }"""
        )

    def first_point(self, key: str, panel: int) -> tuple[dict[str, float], str]:
        """Position of the first point of a panel, in its canvas, and the id of its utterance."""
        found = self.page.evaluate(
            """([key, index]) => {
              const run = JSON.parse(document.getElementById("data").textContent).runs[0];
              const panel = run.panels[key][index];
              const two = (packed, i) => { const raw = atob(packed); return raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8); };
              const svg = document.querySelector(`#fig-${key} svg`);
              const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width / 10;
              return [two(panel.xy, 0) * scale, two(panel.xy, 1) * scale,
                      run.utterances[two(run.sets[panel.points].utterance, 0)].id];
            }""",
            [key, panel],
        )
        return {"x": found[0], "y": found[1]}, found[2]


@pytest.fixture
def visit(browser: Any, page_file: Path) -> Iterator[Visit]:
    visit = Visit(browser, page_file)
    yield visit
    visit.context.close()
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in visit.requests if url.startswith("file:")]) == 1


def test_what_was_asked_about_can_be_heard(visit: Visit) -> None:
    """From the page itself, under its own policy."""
    players = visit.page.locator("#questions audio")
    assert players.count() == 8
    seconds = players.first.evaluate(
        """player => new Promise(done => {
          player.onloadeddata = () => done(player.duration);
          player.onerror = () => done(player.error.message);
          player.load();
        })"""
    )
    assert seconds == pytest.approx(0.5, abs=0.01)


def test_hover_tells_what_a_point_is(visit: Visit) -> None:
    place, utterance = visit.first_point("joint", 3)
    visit.plot("joint").hover(position=place)
    tip = visit.page.locator("#tip")
    assert tip.is_visible()
    told = tip.inner_text()
    assert " s, reads as “" in told
    assert "speaker voice" in told
    visit.plot("joint").hover(position={"x": 1, "y": 1})
    assert not tip.is_visible()
    assert utterance.startswith("toy-heldout-")


def test_click_follows_an_utterance_through_every_figure(visit: Visit) -> None:
    place, _ = visit.first_point("joint", 3)
    assert visit.ink("joint") == 0
    visit.plot("joint").click(position=place)
    visit.page.mouse.move(1, 1)
    chosen = visit.page.locator("tr.chosen")
    assert chosen.count() == 1
    name = chosen.get_attribute("data-utterance")
    assert f"utterance {name}" in visit.page.locator("#shown").inner_text()
    for key in ("joint", "centred", "text-axes", "layers"):
        assert visit.ink(key) > 20, key
    visit.page.keyboard.press("Escape")
    assert visit.ink("layers") == 0
    assert visit.page.locator("tr.chosen").count() == 0


def test_an_example_can_be_chosen_by_keyboard(visit: Visit) -> None:
    button = visit.page.locator("button.pick").first
    button.focus()
    visit.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert visit.ink("joint") > 20
    visit.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert visit.ink("joint") == 0


def test_filter_by_speaker_and_word(visit: Visit) -> None:
    rows = visit.page.locator("#examples tbody tr")
    everyone = rows.count()
    visit.page.select_option("#speaker", "voice1")
    visible = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(visible) < everyone
    assert {row.get_attribute("data-speaker") for row in visible} == {"voice1"}
    of_speaker = visit.ink("joint")
    visit.page.fill("#word", "the")
    assert 0 < visit.ink("joint") < of_speaker
    assert all("the" in (r.get_attribute("data-words") or "").split() for r in rows.all() if r.is_visible())  # fmt: skip
    visit.page.click("#reset")
    assert visit.ink("joint") == 0
    assert all(row.is_visible() for row in rows.all())


def test_tables_sort_both_ways(visit: Visit) -> None:
    table = visit.page.locator("#numbers table")
    head = table.locator("th", has_text="Trained").first

    def values() -> list[float]:
        cells = table.locator("tbody tr td:nth-of-type(1)").all()
        return [float(c.get_attribute("data-value") or "nan") for c in cells]

    before = values()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)


def test_theme_follows_the_system_and_the_button(browser: Any, page_file: Path) -> None:
    for scheme in ("light", "dark"):
        visit = Visit(browser, page_file, color_scheme=scheme)
        ground = "getComputedStyle(document.body).backgroundColor"
        ink = "getComputedStyle(document.querySelector('#fig-joint svg text')).fill"
        first, first_ink = visit.page.evaluate(ground), visit.page.evaluate(ink)
        visit.page.click("#theme")
        assert visit.page.evaluate(ground) != first
        assert visit.page.evaluate(ink) != first_ink
        visit.page.click("#theme")
        assert visit.page.evaluate(ground) == first
        assert visit.complaints == []
        visit.context.close()


def test_readable_without_scripts(browser: Any, page_file: Path) -> None:
    visit = Visit(browser, page_file, java_script_enabled=False)
    text = visit.page.locator("main").inner_text()
    assert "The model is listening" in text
    assert "Shuffled-audio gap" in text
    assert "toy-heldout-0001" in text
    assert not visit.page.locator("#speaker").is_visible()
    assert visit.page.locator("figure svg text").first.is_visible()
    visit.page.locator("figure summary").first.click()
    assert visit.page.locator("figure details table").first.is_visible()
    visit.context.close()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_sideways_scroll(browser: Any, page_file: Path, width: int) -> None:
    visit = Visit(browser, page_file, viewport={"width": width, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    visit.context.close()


def test_the_policy_stops_a_foreign_script(browser: Any, page_file: Path, tmp_path: Path) -> None:
    """Were a script to slip in, the page's own policy would not run it."""
    spoiled = tmp_path / "spoiled.html"
    text = page_file.read_text()
    spoiled.write_text(text.replace("</main>", "<script>window.caught = true</script></main>"))
    visit = Visit(browser, spoiled)
    assert visit.page.evaluate("window.caught") is None
    assert any("Content Security Policy" in c for c in visit.complaints)
    visit.context.close()


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(browser: Any, page_file: Path, scheme: str) -> None:
    visit = Visit(browser, page_file, color_scheme=scheme)
    visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    visit.page.evaluate(AXE.read_text())
    found = visit.page.evaluate("axe.run().then(result => result.violations)")
    serious = {
        v["id"]: [node["html"][:120] for node in v["nodes"][:3]]
        for v in found
        if v["impact"] in ("serious", "critical")
    }
    assert serious == {}
    visit.context.close()
