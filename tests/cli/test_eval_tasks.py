"""`omni-eval --tasks`, from arguments to exit status, on tiny parts; what it refuses, in one line.

.venv/bin/python -m pytest tests/cli/test_eval_tasks.py
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from choices_kit import questions
from tasks_kit import header
from training_kit import CONFIG, save_lm, speech, tiny_lm, write_split

from cli import eval as cli_eval
from cli import train_projector
from omni.formats.shards import Sample
from omni.formats.tasks import Task, make_tasks, write_tasks

HELD = speech(16, 5, 500, "bob")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Shards, a tiny LM, a run of two steps, and a table of questions about the held-out split."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("place")
    write_split(root / "shards", "train-x", speech(24))
    write_split(root / "shards", "dev-x", HELD, role="eval")
    save_lm(root / "lm", tiny_lm(sequence_len=256))
    args = f"--shards {root}/shards --lm {root}/lm --runs {root}/runs --run a --steps 2 --hidden 32"
    args += " --batch-size 8 --decode-limit 1 --wandb disabled --warmup 1"
    assert train_projector.main(args.split()) == 0
    table(root / "mini.parquet")
    yield root
    torch.set_num_threads(threads)


def table(
    path: Path, samples: Sequence[Sample] = HELD, letter: int | None = None,
    role: str = "eval", split: str = "dev-x", shuffled: bool = False,
) -> Path:  # fmt: skip
    rows = [Task(**{**vars(task), "split": split}) for task in questions(samples, letter)]
    write_tasks(make_tasks({**header(role), "shuffled": shuffled}, rows), path)
    return path


def test_it_prints_one_table_and_writes_every_question(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "a.json", tmp_path / "b.json"
    args = [f"{place}/runs/a", "--tasks", f"{place}/mini.parquet", "--cascade", "off", "--json"]
    assert cli_eval.main([*args, str(out)]) == 0
    text = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert list(written) == ["tasks"], "questions in the place of transcripts"
    found = written["tasks"]["mini"]
    assert {*found} == {"all", "words", "voice", "kinds", "alerts", "questions", "obedience"}
    assert (
        found["words"]["n"] + found["voice"]["n"]
        == found["all"]["n"]
        == 16
        == len(found["questions"])
    )
    for name in ("blind", "shuffled", "noise", "transcript"):
        assert {"accuracy", "mcnemar_p"} <= {*found["all"]["controls"][name]}
    low, high = found["all"]["interval"]
    for shown in (
        f"{found['all']['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{found['voice']['text']:.1%}",
    ):
        assert shown in text
    assert found["all"]["verdict"].startswith("not shown to hear")
    assert found["words"]["verdict"] in text
    assert re.search(r"reads the true transcript +\d", text)
    assert "Whisper's transcript" not in text
    assert cli_eval.main([*args, str(again), "--batch-size", "32"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_splits_are_judged_beside_it_where_they_are_named(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    args = f"{place}/runs/a --tasks {place}/mini.parquet --split dev-x --decode-limit 2 --limit 4 --json {out}"
    assert cli_eval.main(args.split()) == 0
    written = json.loads(out.read_text())
    assert list(written) == ["dev-x", "tasks"]
    assert written["dev-x"]["n"] == written["tasks"]["mini"]["all"]["n"] == 4


def test_a_name_stands_for_a_table_in_its_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifests" / "tasks").mkdir(parents=True)
    table(tmp_path / "manifests" / "tasks" / "mine.parquet")
    monkeypatch.chdir(tmp_path)
    args = f"{place}/runs/a --tasks mine --limit 2 --cascade off --json a.json"
    assert cli_eval.main(args.split()) == 0
    assert list(json.loads(Path("a.json").read_text())["tasks"]) == ["mine"]


def test_a_table_that_tells_the_answer_is_warned_of(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = table(tmp_path / "t.parquet", letter=0, shuffled=True), tmp_path / "a.json"
    args = f"{place}/runs/a --tasks {path} --cascade off --json {out}"
    assert cli_eval.main(args.split()) == 0
    text = capsys.readouterr().out
    alerts = json.loads(out.read_text())["tasks"]["t"]["alerts"]
    assert [line for line in alerts if "always A gets 100%" in line]
    assert [line for line in alerts if "16/0/0/0 at A/B/C/D" in line]
    assert [line for line in alerts if "given to other utterances" in line]
    assert all(f"alert: {alert}" in text for alert in alerts)


def test_what_can_t_judge_is_refused_in_a_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: object, *more: str) -> str:
        assert cli_eval.main([f"{place}/runs/a", "--tasks", str(path), *more]) == 1
        said = capsys.readouterr().err.strip().splitlines()
        (line,) = [line for line in said if not line.startswith("LM: ")]
        return line

    mine = place / "mini.parquet"
    assert "can't be read" in refused(tmp_path / "none.parquet")
    lost = table(tmp_path / "lost.parquet", [*HELD, *speech(2, 5, 900, "eve")])
    assert re.search(
        r"2 of 18 utterances .* in no shard, eve-0900 among them .*dev-x", refused(lost)
    )
    trained = table(tmp_path / "t.parquet", speech(8), role="train", split="train-x")
    assert "about train-x, which the run has trained on" in refused(trained)
    write_split(tmp_path / "s", "dev-x", HELD, role="eval", config={**CONFIG, "encoder": "b"})
    assert "features have fingerprint" in refused(mine, "--shards", f"{tmp_path}/s")
    rows = [Task(**{**vars(t), "options": ()}) for t in questions(HELD)]
    write_tasks(make_tasks(header("eval"), rows), tmp_path / "open.parquet")
    assert "no question with options" in refused(tmp_path / "open.parquet")
    twice = table(tmp_path / "mini.parquet")
    assert "two tables of one name" in refused(mine, str(twice))


def test_a_table_for_training_may_judge_a_run_that_knows_nothing_of_it(
    place: Path, tmp_path: Path
) -> None:
    """As one made of a split that this run has never seen."""
    other = speech(8, 9, 700, "zoe")
    write_split(tmp_path / "s", "train-y", other)
    path = table(tmp_path / "t.parquet", other, role="train", split="train-y")
    args = f"{place}/runs/a --tasks {path} --shards {tmp_path}/s --cascade off"
    assert cli_eval.main(args.split()) == 0


def test_an_lm_without_letters_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from omni.nanochat.tokenizer import Tokenizer

    encode = Tokenizer.encode
    monkeypatch.setattr(
        Tokenizer, "encode", lambda self, t: [1, 2] if t == "D" else encode(self, t)
    )
    assert cli_eval.main([f"{place}/runs/a", "--tasks", f"{place}/mini.parquet"]) == 1
    assert "the letter D is 2 tokens" in capsys.readouterr().err
