"""`omni-eval` of a run with adapters: their scale, the curve, and what was kept of the run before.

.venv/bin/python -m pytest tests/cli/test_eval_adapters.py
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from choices_kit import questions
from tasks_kit import about, header
from training_kit import save_lm, speech, tiny_lm, write_split

from cli import eval as cli_eval
from cli import train_projector
from omni.bridge.turns import Template
from omni.evaluation.retention import word_error_rate
from omni.formats.tasks import make_tasks, write_tasks
from omni.nanochat import load_checkpoint
from omni.runs import load_run

HELD = speech(8, 5, 500, "bob")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that repeats, one with adapters that goes on from it, and a table of both kinds of rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("place")
    write_split(root / "shards", "train-x", speech(24))
    write_split(root / "shards", "dev-x", HELD, role="eval")
    save_lm(root / "lm", tiny_lm(sequence_len=256))
    write_tasks(about(speech(24)), root / "answers.parquet")
    fixed = f"--shards {root}/shards --runs {root}/runs --batch-size 8 --wandb disabled --warmup 1"
    fixed += " --decode-limit 1 --device cpu"
    first = f"{fixed} --lm {root}/lm --run first --steps 2 --hidden 16"
    assert train_projector.main(first.split()) == 0
    more = f"{fixed} --run second --steps 6 --tasks {root}/answers.parquet --from {root}/runs/first"
    assert train_projector.main(f"{more} --lora 4 --lora-lr 0.05".split()) == 0
    asked = [
        replace(task, split="dev-x", prompt=("What came first?", "How does it begin?")[i % 2])
        for i, task in enumerate(questions(HELD))
    ]
    spoken = [replace(t, options=(), prompt="The last word?") for t in asked]
    write_tasks(make_tasks(header("eval"), [*asked, *spoken]), root / "mini.parquet")
    yield root
    torch.set_num_threads(threads)


def judged(place: Path, tmp_path: Path, *more: str, run: str = "second") -> dict[str, dict]:
    out = tmp_path / "out.json"
    args = [f"{place}/runs/{run}", "--cascade", "off", "--json", str(out), *more]
    assert cli_eval.main(args) == 0
    return json.loads(out.read_text())


def test_everything_that_a_table_tells(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = f"{place}/mini.parquet"
    found = judged(place, tmp_path, "--tasks", mini, "--curve", "--retention")
    text = capsys.readouterr().out
    table, split = found["tasks"]["mini"], found["dev-x"]
    kept = table["text"]
    assert (kept["n"], kept["questions"], kept["identical"]) == (16, 8, True)
    assert kept["bits_per_byte"] == kept["bits_per_byte_bare"]
    assert "every score is the same to the bit" in text
    assert [p["scale"] for p in table["curve"]] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
    at_one = table["curve"][4]
    assert at_one["accuracy"] == table["all"]["accuracy"]
    assert at_one["transcribes"] == table["obedience"]["transcribes"]
    alone = [s for s in HELD if " " not in s.meta["text_norm"]]
    assert len(alone) == 2, "whose only word is the answer, and a transcript"
    assert (table["obedience"]["open_n"], table["obedience"]["options_n"]) == (6, 8)
    assert table["wordings"]["n"] == 7, "the one on the voice has one wording"
    assert at_one["wer"] == pytest.approx(split["wer"])
    assert f"{100 * (split['kept']['after'] - split['kept']['before']):+.1f} points" in text
    assert split["kept"]["after"] == pytest.approx(split["wer"])
    first = load_run(place / "runs" / "first")
    lm, tok, _ = load_checkpoint(str(place / "lm"))
    template = Template(**first.config["template"])
    before = word_error_rate(lm, tok, first.projector(), HELD, template)
    assert split["kept"]["before"] == before
    assert split["kept"]["before"] != split["kept"]["after"]


def test_the_scale_turns_adapters_down_and_off(place: Path, tmp_path: Path) -> None:
    """Off, an evaluation is one of the LM alone; at one it is as the run was trained."""
    ces = {
        scale: judged(place, tmp_path, "--decode-limit", "0", "--lora-scale", scale)["dev-x"]["ce"]
        for scale in ("0", "0.5", "1")
    }
    assert ces["1"] == judged(place, tmp_path, "--decode-limit", "0")["dev-x"]["ce"]
    assert len(set(ces.values())) == 3
    (place / "runs" / "bare").mkdir(exist_ok=True)
    for file in (place / "runs" / "second").iterdir():
        if file.name.startswith(("config", "projector", "provenance")):
            (place / "runs" / "bare" / file.name).write_bytes(file.read_bytes())
    config = json.loads((place / "runs" / "bare" / "config.json").read_text())
    del config["lora"]
    (place / "runs" / "bare" / "config.json").write_text(json.dumps(config))
    assert judged(place, tmp_path, "--decode-limit", "0", run="bare")["dev-x"]["ce"] == ces["0"]


def test_what_is_not_there_is_said_in_a_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(run: str, *more: str) -> str:
        assert cli_eval.main([f"{place}/runs/{run}", "--cascade", "off", *more]) == 1
        said = capsys.readouterr().err.strip().splitlines()
        (line,) = [line for line in said if not line.startswith("LM: ")]
        return line

    assert "no adapters to scale by 0.5" in refused("first", "--lora-scale", "0.5")
    assert "the run has no adapters" in refused(
        "first", "--tasks", f"{place}/mini.parquet", "--curve"
    )
    assert "--curve needs a table" in refused("second", "--curve")
    trained = refused("second", "--tasks", f"{place}/answers.parquet")
    assert "has trained on this table" in trained
    capsys.readouterr()
    found = judged(place, tmp_path, "--retention", "--decode-limit", "1", run="first")
    assert "no run to compare transcripts with" in capsys.readouterr().out
    assert "kept" not in found["dev-x"]
    lora = place / "runs" / "second" / "lora-best.safetensors"
    whole = lora.read_bytes()
    lora.write_bytes(whole[: len(whole) // 2])
    try:
        assert "lora-best.safetensors" in refused("second")
    finally:
        lora.write_bytes(whole)
    projector = place / "runs" / "first" / "projector-best.safetensors"
    was = projector.read_bytes()
    projector.write_bytes((place / "runs" / "first" / "projector-init.safetensors").read_bytes())
    try:
        assert "has another projector by now" in refused("second", "--retention")
    finally:
        projector.write_bytes(was)
