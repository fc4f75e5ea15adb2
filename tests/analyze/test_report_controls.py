"""The report beside Whisper's own decoder, and what it says of the split that chose the checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path

import analyze_kit as kit
import numpy as np
import pytest

from analyze.examine import Request, examine
from analyze.measure import cascade
from analyze.page.html import RunView, to_html, to_json
from omni import runs
from omni.errors import OmniError

N = 8


class Ear:
    """Says the first words of a fixed sentence, one for each second begun."""

    def transcribe(self, features: Sequence[np.ndarray], batch_size: int = 8) -> list[str]:
        return ["set the red book by the river"[: 8 + len(x) % 3] for x in features]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("controls")
    kit.write_split(root / "shards", "toy-heldout", kit.speech(N, 11, "toy-heldout"))
    kit.write_run(root / "good", root / "shards", *kit.teach())
    return root


@pytest.fixture(scope="module")
def heard(place: Path) -> RunView:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade, "load_decoder", lambda *_, **__: Ear())
        patch.setattr(cascade, "MAX_CASCADE", 5)
        return examine(runs.load_run(place / "good"), Request(points=200))


def test_whispers_own_rate_is_a_row_of_the_table_and_the_json(heard: RunView) -> None:
    found = next(n for n in heard.numbers if n.key == "wer_cascade")
    assert found.n == 5
    assert 0 < found.trained.low <= found.trained.value <= found.trained.high
    assert (found.untrained, found.shuffled) == (None, None)
    assert "Word error rate of Whisper's own decoder" in to_html([heard]).replace("&#39;", "'")
    written = json.loads(to_json([heard]))["runs"][0]
    assert written["numbers"]["wer_cascade"]["trained"]["value"] == found.trained.value
    assert written["provenance"]["cascade"] == "decoder of openai/whisper-base, 5 utterances"


def test_where_it_can_not_be_had_a_line_says_why_and_nothing_is_downloaded(
    place: Path, heard: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def refuse(*_: object, network: bool, **__: object) -> None:
        asked.append(network)
        raise OmniError("no source has the encoder", "no/such")

    monkeypatch.setattr(cascade, "load_decoder", refuse)
    view = examine(runs.load_run(place / "good"), Request(points=200))
    assert asked == [False]
    assert dict(view.facts)["cascade"] == "none: no source has the encoder (no/such)"
    others = [n for n in heard.numbers if n.key != "wer_cascade"]
    assert [n.key for n in view.numbers] == [n.key for n in others]
    assert repr(view.numbers) == repr(others)  # the others don't change for it


def test_the_split_that_chose_the_checkpoint_is_an_alert(place: Path, heard: RunView) -> None:
    run = runs.load_run(place / "good")
    told = [a for a in heard.alerts if "chose this checkpoint" in a.text]
    best = (run.path / "projector-best.safetensors").is_file()
    assert len(told) == int(best and run.config["select"] == "toy-heldout")
    assert all(a.kind == "careful" for a in told)
