"""Options out of range are refused while they are parsed: status 2, one line that names the option,
nothing loaded, nothing written.

.venv/bin/python -m pytest tests/cli/test_options.py
"""

import sys
from argparse import ArgumentTypeError
from math import inf
from pathlib import Path

import pytest
from command_kit import (
    commands,
    environment,
    files_below,
    module_of,
    one_line,
    parser_of,
    run_command,
)
from hypothesis import given
from hypothesis import strategies as st

from cli import _types
from omni.errors import OmniError
from train.options import BOUNDS, TrainOptions

SHAPES = ("-1", "nan", "1.5", "many")  # no whole number of at least 0
BAD = [
    *(("omni-extract", option, value) for option, values in {
        "--batch-size": ("0", "-2", "1.5", "ten", "99999999999"),
        "--workers": ("0", "-1", "1e3"),
        "--threads": ("0", "-4", "x"),
        "--ray-workers": ("0", "-1"),
        "--rank": ("-1", "first"),
        "--world-size": ("0", "-1"),
        "--limit": ("0", "-5", "all"),
        "--shard-size": ("0", "-1", "nan"),
        "--max-failures": ("-1", "none"),
        "--margin": ("-1", "nan", "inf", "31"),
        "--device": ("tpu", "cuda:", "cuda:-1", "cpu:0", "", "CUDA", "cuda:0 "),
        "--layers": ("", "first", "-1", "1,,2", "1.5", "0,a"),
        "--encoder": ("", " "),
        "--split": ("",), "--root": ("",), "--audio-dir": ("",), "--transcripts": ("",),
        "--manifest": ("",), "--out": ("",), "--manifests": ("",), "--json": ("",),
        "--verify": ("",), "--downloads": ("",),
        "--dtype": ("float32",), "--window": ("60",), "--engine": ("spark",), "--source": ("ftp",),
    }.items() for value in values),
    *(("omni-train-projector", option, value) for option, values in {
        "--clip": ("-1", "0", "nan", "inf", "-inf", "large"),
        "--lr": ("-1", "0", "nan", "inf", "1e999", "1e308", ""),
        "--weights": ("nan", "-1", "0", "inf", "2,0.5"),
        "--ctc-weight": ("-0.1", "nan"),
        "--noise": ("-1", "nan"), "--gain": ("-1", "inf"), "--mask": ("1", "-0.1", "nan"),
        "--stretch": ("1", "2", "nan"),
        "--steps": SHAPES, "--warmup": SHAPES, "--batch-frames": SHAPES, "--eval-every": SHAPES,
        "--save-every": SHAPES, "--eval-limit": SHAPES, "--decode-limit": SHAPES,
        "--micro-batch-size": SHAPES, "--workers": (*SHAPES, "5000"),
        "--batch-size": ("0", *SHAPES), "--buffer": ("0", *SHAPES),
        "--stack": ("0", "-1", "2000"), "--hidden": ("0", "-1", "1000000"),
        "--seed": ("-1", "4294967296", "x"),
        "--run": ("", " ", "..", ".", "../x", "a/b", "/tmp/x", "a\\b", "a\nb", "n" * 151, ".n"),
        "--runs": ("",), "--shards": ("",), "--eval-shards": ("",), "--lm": ("",),
        "--device": ("tpu", "cuda:x"), "--projector": ("rnn",), "--wandb": ("maybe",),
    }.items() for value in values),
    *(("omni-eval", option, value) for option, values in {
        "--limit": SHAPES, "--examples": SHAPES, "--decode-limit": SHAPES,
        "--batch-size": ("0", *SHAPES), "--device": ("gpu",), "--json": ("",), "--lm": ("",),
        "--shards": ("",), "--split": ("",), "--encoder": ("",), "--checkpoint": ("first",),
        "--runs": ("",),
    }.items() for value in values),
    *(("omni-pca", option, value) for option, values in {
        "--utterances": ("0", *SHAPES), "--points": ("0", *SHAPES), "--seed": ("-1", "2**8"),
        "--run": ("",), "--runs": ("",), "--shards": ("",), "--png": ("",), "--device": ("mps",),
        "--export-projector": ("",), "--lm": ("",),
    }.items() for value in values),
    *(("omni-transcribe", option, value) for option, values in {
        "--temperature": ("-1", "nan", "inf"), "--top-k": ("0", "-3", "all"), "--seed": ("-1",),
        "--max-new": ("0", "-1"), "--chunk-seconds": ("nan", "0", "-5", "inf", "1e9"),
        "--batch-size": ("0", "-1"), "--device": ("tpu",), "--run": ("",), "--runs": ("",),
        "--encoder": ("",), "--lm": ("",),
    }.items() for value in values),
    *(("omni-smoke", option, value) for option, values in {
        "--steps": ("0", *SHAPES), "--seed": ("-1",), "--device": ("tpu",), "--encoder": ("",),
    }.items() for value in values),
    *(("omni-lm", option, value) for option, values in {
        "--softcap": ("0", "-15", "nan"), "--batch": ("0", "-1"), "--length": ("0", "-1"),
    }.items() for value in values),
    *(("omni-mix", option, value) for option, values in {
        "--rows": ("0", "3", *SHAPES), "--seed": ("-1", "x"), "--device": ("tpu",),
        "--shares": ("repeat=0.5", "songs=1", "repeat=nan", "repeat=1,repeat=0", ""),
        "--shards": ("",), "--manifests": ("",), "--chats": ("",), "--lm": ("",), "--out": ("",),
        "--look": ("",),
    }.items() for value in values),
    *(("omni-demo", "--seed", value) for value in ("-1", "x")),
    ("omni-demo", "--out", ""),
    *(("omni-doctor", option, "") for option in ("--encoder", "--lm", "--out")),
]  # fmt: skip
POSITIONALS = {"omni-transcribe": ["a.wav"], "omni-lm": ["inspect", "demo"]}


@pytest.mark.parametrize(("command", "option", "value"), BAD)
def test_an_option_out_of_range_is_refused_when_it_is_parsed(
    command: str,
    option: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        module_of(command).main([*POSITIONALS.get(command, []), option, value])
    assert ended.value.code == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith(f"error: argument {option}: ")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "args", "named"),
    [
        ("omni-eval", [""], "RUN"),
        ("omni-pca", [""], "OUT"),
        ("omni-transcribe", [""], "FILE"),
        ("omni-transcribe", [], "FILE"),
        ("omni-lm", ["inspect", ""], "PATH"),
        ("omni-lm", ["delete", "x"], "verb"),
        ("omni-demo", ["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_words_are_one_line_too(
    command: str, args: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        module_of(command).main(args)
    assert ended.value.code == 2
    assert named in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("command", commands())
def test_help_version_and_refusals_import_no_torch(command: str, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None"
    for args, status in (["--help"], 0), (["--version"], 0), (["--no-such-option"], 2):
        done = run_command(command, *args, cwd=tmp_path, before=blocked)
        assert done.returncode == status, done.stderr
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("command", commands())
def test_what_a_command_takes_by_default_is_not_refused(command: str) -> None:
    taken = parser_of(command).parse_args(POSITIONALS.get(command, []))
    assert vars(taken)


@pytest.mark.parametrize("command", commands())
def test_every_command_tells_its_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module_of(command).main(["--version"])
    assert ended.value.code == 0
    name, _, version = capsys.readouterr().out.strip().partition(" ")
    assert name == command
    assert version[0].isdecimal() or version == "(not installed)"


@pytest.mark.parametrize("command", commands())
def test_every_module_runs_by_its_name(command: str, tmp_path: Path) -> None:
    import subprocess

    line = [sys.executable, "-m", commands()[command], "--version"]
    done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.stdout.startswith(f"{command} "), done.stderr


@given(st.integers(-10, 10), st.integers(0, 10), st.integers())
def test_whole_takes_what_lies_between_and_nothing_else(least: int, width: int, value: int) -> None:
    parse = _types.whole(least, least + width)
    if least <= value <= least + width:
        assert parse(str(value)) == value
    else:
        with pytest.raises(ArgumentTypeError, match="whole number"):
            parse(str(value))


@pytest.mark.parametrize("name", sorted(BOUNDS))
@given(value=st.floats() | st.integers(-3, 3) | st.integers(0, 2**40).map(float))
def test_a_command_and_the_library_refuse_the_same(name: str, value: float) -> None:
    text = repr(int(value) if value == value // 1 and abs(value) < inf else value)
    option = f"--{name.replace('_', '-')}"
    try:
        args = parser_of("omni-train-projector").parse_args([f"{option}={text}"])
    except SystemExit:
        with pytest.raises(OmniError, match=r"is not a (whole|finite) number") as caught:
            TrainOptions(**{name: (value,) if name == "weights" else value})
        assert caught.value.where == option
        return
    parsed = getattr(args, name)
    TrainOptions(**{name: tuple(parsed) if isinstance(parsed, list) else parsed})


def test_a_refusal_is_worded_once(capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("stack", 2000), ("lr", 0.0), ("mask", 1.0), ("seed", -1)):
        option = f"--{name}"
        with pytest.raises(SystemExit):
            parser_of("omni-train-projector").parse_args([option, str(value)])
        with pytest.raises(OmniError) as caught:
            TrainOptions(**{name: value})
        assert str(BOUNDS[name]) in capsys.readouterr().err
        assert str(BOUNDS[name]) in str(caught.value)


@pytest.mark.parametrize("option", ["--transcripts", "--root", "--out", "--encoder", "--json"])
@pytest.mark.parametrize("value", ["a\0b", "\0", "t.csv\0"])
def test_a_zero_byte_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        module_of("omni-extract").main([option, value])
    assert ended.value.code == 2
    assert "zero byte" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("omni-extract", ["--split", "smoke", "--device", "cuda:99"]),
        ("omni-extract", ["--split", "x", "--manifest", "nowhere.parquet"]),
        ("omni-smoke", ["--device", "cuda:99"]),
        ("omni-train-projector", ["--shards", "nowhere"]),
        ("omni-lm", ["inspect", "./nowhere"]),
        ("omni-eval", ["--device", "cuda:99"]),
    ],
)
def test_what_this_machine_lacks_is_no_wrong_usage(
    command: str,
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 2 is for what is wrong on every machine, told by the words alone. A device, a file or a
    model that is not here is status 1: the same command may be right elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert module_of(command).main(args) == 1
    assert "error: " in capsys.readouterr().err


@given(st.text())
def test_a_name_never_leads_out_of_its_folder(text: str) -> None:
    try:
        name = _types.name(text)
    except ArgumentTypeError:
        return
    assert (Path("/runs") / name).resolve() == Path("/runs") / text


@given(st.floats(), st.floats(0, 1), st.floats(1, 9))
def test_a_number_is_finite_and_inside(value: float, least: float, most: float) -> None:
    try:
        assert least <= _types.number(least, most)(repr(value)) <= most
    except ArgumentTypeError:
        assert not least <= value <= most


@pytest.mark.parametrize("good", ["auto", "cpu", "cuda", "cuda:0", "cuda:13"])
def test_devices_of_this_project_are_taken(good: str) -> None:
    assert _types.device(good) == good
