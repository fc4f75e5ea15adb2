"""What chose the checkpoint does not judge it unsaid: in omni-eval, on the page and in its JSON."""

import json
from pathlib import Path

import pytest
import torch
from training_kit import save_lm, speech, tiny_lm, write_split

from cli import eval as cli_eval
from cli import pca, train_projector
from omni.formats.splits import bears_name, find_splits
from omni.runs import load_run

TRAIN = [
    "--steps",
    "2",
    "--hidden",
    "16",
    "--batch-size",
    "8",
    "--decode-limit",
    "0",
    "--wandb",
    "disabled",
    "--warmup",
    "1",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of one name and a third, an LM, and a run that they all judged; another run that
    held utterances of its own out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("place")
    write_split(root / "shards", "train-x", speech(24))
    write_split(root / "a", "dev-x", speech(6, 5, 500, "bob"), role="eval")
    write_split(root / "b", "dev-x", speech(5, 6, 600, "cyd"), role="eval")
    write_split(root / "b", "test-x", speech(5, 7, 700, "dan"), role="eval")
    save_lm(root / "lm", tiny_lm())
    own = [*TRAIN, "--shards", f"{root}/shards", "--lm", f"{root}/lm", "--runs", f"{root}/runs"]
    judges = ["--eval-shards", f"{root}/a", f"{root}/b"]
    assert train_projector.main([*own, "--run", "judged", *judges]) == 0
    assert train_projector.main([*own, "--run", "alone"]) == 0
    yield root
    torch.set_num_threads(threads)


def judged(root: Path, out: Path, *args: str, run: str = "judged") -> dict[str, dict]:
    given = [f"{root}/runs/{run}", "--json", str(out), "--decode-limit", "0", *args]
    assert cli_eval.main(given) == 0
    return json.loads(out.read_text())


def report(root: Path, out: Path, *args: str, run: str = "judged") -> tuple[list[str], str]:
    """The alerts on what chose the checkpoint, and the page."""
    given = [str(out), "--run", f"{root}/runs/{run}", "--utterances", "8", *args]
    assert pca.main(given) == 0
    (said,) = json.loads(out.with_suffix(".json").read_text())["runs"]
    return [a["text"] for a in said["alerts"] if "checkpoint among" in a["text"]], out.read_text()


def test_two_splits_of_one_name_are_both_judged_and_one_of_them_chose(
    place: Path, tmp_path: Path
) -> None:
    run = load_run(place / "runs" / "judged")
    assert run.chosen_by() == "a/dev-x"
    assert run.clean_splits() == ["test-x", "b/dev-x"]
    figures = judged(place, tmp_path / "f.json")
    assert {name: f["n"] for name, f in figures.items()} == {
        "a/dev-x": 6, "b/dev-x": 5, "test-x": 5,
    }  # fmt: skip
    assert [name for name, f in figures.items() if "selection" in f] == ["a/dev-x"]
    assert "had no say: test-x, b/dev-x" in figures["a/dev-x"]["selection"]
    assert "selection" not in judged(place, tmp_path / "f.json", "--checkpoint", "last")["a/dev-x"]


def test_the_one_that_chose_is_known_by_its_shorter_name_too(place: Path, tmp_path: Path) -> None:
    figures = judged(place, tmp_path / "f.json", "--shards", f"{place}/a")
    assert "had no say: test-x, b/dev-x" in figures["dev-x"]["selection"]
    figures = judged(place, tmp_path / "f.json", "--shards", f"{place}/b")
    assert not any("selection" in f for f in figures.values())
    (split,) = find_splits(place / "a")
    assert bears_name(split, "dev-x")
    assert bears_name(split, "a/dev-x")
    assert not bears_name(split, "b/dev-x")
    assert not bears_name(split, "ev-x")


def test_the_report_says_what_chose_the_checkpoint_and_what_is_clean(
    place: Path, tmp_path: Path
) -> None:
    alerts, page = report(place, tmp_path / "r.html")
    assert len(alerts) == 1
    assert alerts[0].startswith("a/dev-x chose this checkpoint among others")
    assert "had no say: test-x, b/dev-x" in alerts[0]
    assert alerts[0] in page
    alerts, page = report(place, tmp_path / "r.html", "--shards", f"{place}/b")
    assert alerts == []
    assert "checkpoint among others" not in page


def test_the_report_of_a_run_that_held_utterances_out_says_that_they_chose(
    place: Path, tmp_path: Path
) -> None:
    alerts, _ = report(place, tmp_path / "r.html", run="alone")
    assert len(alerts) == 1
    assert alerts[0].startswith("held-out chose this checkpoint")
    assert "no other split judges this run" in alerts[0]
    figures = judged(place, tmp_path / "f.json", run="alone")
    assert list(figures) == ["held-out"]
    assert "selection" in figures["held-out"]
