"""One utterance longer than the LM's rows is left out and told, where a run is trained and where it is
judged; the others are judged all the same."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_kit import WIDTH, save_lm, speech, tiny_lm, write_split

from cli import eval as cli_eval
from cli import pca, train_projector
from omni.formats.shards import Sample

LONG = 20_000  # more positions than the tiny LM's rows have, as characters or as frames


def longer(sample: Sample, how: str) -> Sample:
    if how == "text":
        said = "x" * LONG
        return replace(sample, meta={**sample.meta, "text": said, "text_norm": said})
    frames = np.zeros((4 * LONG, WIDTH), np.float16)
    return replace(sample, features=frames, meta={**sample.meta, "n_frames": len(frames)})


@pytest.fixture(scope="module", params=["text", "audio"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A run that is judged by five utterances and one that is too long; a split of such ones alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("place")
    write_split(root / "shards", "train-x", speech(16))
    judges = speech(6, 5, 500, "bob")
    judges[2] = longer(judges[2], request.param)
    write_split(root / "shards", "dev-x", judges, role="eval")
    alone = [longer(s, request.param) for s in speech(2, 6, 700, "cyd")]
    write_split(root / "long", "dev-y", alone, role="eval")
    save_lm(root / "lm", tiny_lm())
    args = f"--shards {root}/shards --lm {root}/lm --runs {root}/runs --run a --steps 1 --hidden 16"
    args += " --batch-size 8 --decode-limit 0 --wandb disabled --warmup 1"
    assert train_projector.main(args.split()) == 0
    yield root
    torch.set_num_threads(threads)


def test_a_run_can_be_judged_by_the_split_that_judged_its_training(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f.json"
    assert cli_eval.main([f"{place}/runs/a", "--json", str(out), "--decode-limit", "0"]) == 0
    assert "dev-x: 1 utterance too long for the LM left out" in capsys.readouterr().out
    ids = [u["id"] for u in json.loads(out.read_text())["dev-x"]["utterances"]]
    assert len(ids) == 5
    assert "bob-0502" not in ids


def test_the_report_leaves_it_out_and_says_so(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    assert pca.main([str(out), "--run", f"{place}/runs/a"]) == 0
    (said,) = json.loads(out.with_suffix(".json").read_text())["runs"]
    assert len(said["utterances"]) == 5
    assert any("bob-0502" in alert["text"] for alert in said["alerts"])
    assert "bob-0502" in out.read_text()


@pytest.mark.parametrize("command", ["eval", "pca"])
def test_a_split_of_such_utterances_alone_is_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run = f"{place}/runs/a"
    if command == "eval":
        assert cli_eval.main([run, "--shards", f"{place}/long"]) == 1
    else:
        out = str(tmp_path / "r.html")
        assert pca.main([out, "--run", run, "--shards", f"{place}/long"]) == 1
    assert "error: no utterance fits in a row of the LM" in capsys.readouterr().err
