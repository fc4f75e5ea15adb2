"""Nothing that is wrong with wandb, its key or its host stops a run or asks a question.

.venv/bin/python -m pytest tests/omni/test_tracking.py
"""

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from omni import tracking
from omni.errors import OmniError
from omni.tracking import WandbPage, page_id, start_wandb, wandb_mode

LINE = "machine api.wandb.ai login user password " + "k" * 40


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home, and nothing of wandb in the environment."""
    for name in [key for key in os.environ if key.startswith("WANDB_") or key == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def netrc(home: Path, text: str, mode: int = 0o600) -> None:
    """A ~/.netrc."""
    file = home / ".netrc"
    file.write_text(text)
    file.chmod(mode)


def test_wandb_never_asks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode("auto") == "offline"
    with pytest.raises(OmniError, match="wandb has no key"):
        wandb_mode("online")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
    with pytest.raises(OmniError, match="no wandb mode"):
        wandb_mode("of")


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_wandb_mode_set_to_nothing_is_not_set(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", value)
    assert wandb_mode("auto") == "offline"
    netrc(home, LINE)
    assert wandb_mode("auto") == "online"


@pytest.mark.parametrize(("value", "mode"), [("dryrun", "offline"), ("OFFLINE", "offline")])
def test_other_spellings_of_wandb_mode(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", value)
    assert wandb_mode("auto") == mode


@pytest.mark.parametrize("value", ["on", "shared", "auto", "0"])
def test_an_odd_wandb_mode_is_one_line_that_names_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", value)
    with pytest.raises(OmniError, match=f"no wandb mode .*WANDB_MODE={value}"):
        wandb_mode("auto")
    assert wandb_mode("offline") == "offline"  # what is asked for by name comes first


def test_a_netrc_that_cannot_be_read_is_no_key_and_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/home/of/another/.netrc")

    monkeypatch.setattr(tracking, "netrc", refused)
    assert wandb_mode("auto") == "offline"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "wandb is offline: ~/.netrc can't be used (Permission denied)"
    with pytest.raises(OmniError, match=r"wandb has no key; ~/\.netrc can't be used"):
        wandb_mode("online")


@pytest.mark.parametrize("damage", ["folder", "words", "open to all", "no text"])
def test_a_damaged_netrc_is_no_key(
    home: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    file = home / ".netrc"
    if damage == "folder":
        file.mkdir()
    elif damage == "no text":
        file.write_bytes(b"machine \xff\xfe\x00\x81 login")
        file.chmod(0o600)
    else:
        netrc(home, LINE if damage == "open to all" else "machine machine password", 0o644)
    if damage == "open to all" and stat.S_IMODE(file.stat().st_mode) != 0o644:
        pytest.skip("this file system keeps no permissions")
    assert wandb_mode("auto") == "offline"
    assert capsys.readouterr().err.startswith("wandb is offline: ~/.netrc can't be used (")


def test_the_key_is_looked_for_under_the_host_in_use(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc(home, LINE.replace("api.wandb.ai", "wandb.example.org"))
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode("auto") == "online"


def test_a_host_that_does_not_answer_leaves_the_run_offline(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_SILENT", "")
    monkeypatch.setattr(tracking, "START_SECONDS", 2)
    run = home / "run"
    run.mkdir()
    page = start_wandb(run, {"a": 1}, "auto")
    assert page is not None
    page.log({"loss": 1.0}, step=1)
    page.finish()
    assert "wandb is kept offline" in capsys.readouterr().err
    assert list(run.glob("wandb/offline-run-*/*.wandb"))


def test_what_wandb_raises_later_is_one_line_and_the_run_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken:
        def log(self, *_: object, **__: object) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        def finish(self) -> None:
            raise AssertionError("nothing is asked of it any more")

    page = WandbPage(Broken())
    page.log({"loss": 1.0}, step=1)
    page.log({"loss": 0.5}, step=2)
    page.summarize({"wer": 1.0})
    page.finish()
    assert capsys.readouterr().err == "wandb stopped (Broken pipe): going on without it\n"


def test_offline_that_fails_is_an_error_of_ours(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("a page\nof pydantic")

    monkeypatch.setattr(tracking, "_init", fails)
    with pytest.raises(OmniError, match=r"wandb did not start \(a page of pydantic\)"):
        start_wandb(home, {}, "offline")


def test_two_runs_of_one_name_are_two_pages_and_each_keeps_its_own(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "run", tmp_path / "b" / "run"
    first = page_id(one)
    assert first == page_id(one) != page_id(two)
    shutil.copytree(one, tmp_path / "copy")
    assert page_id(tmp_path / "copy") == first
    shutil.rmtree(one)
    assert page_id(one) != first  # begun anew in the same place
