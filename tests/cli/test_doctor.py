"""omni-doctor names what is there and mends what is not.

.venv/bin/python -m pytest tests/cli/test_doctor.py
"""

import sys

import pytest

from cli import doctor
from cli.doctor import main


def test_a_sound_machine_passes(tmp_path, capsys) -> None:
    assert main(["--offline", "--lm", "demo", "--out", str(tmp_path / "not" / "yet")]) == 0
    said = capsys.readouterr().out
    for word in ("torchaudio loads", "decodes FLAC", "encoder openai/whisper-base from", "era E"):
        assert word in said
    assert "bad" not in said


def test_what_is_missing_is_bad_and_has_a_mend(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(
        sys.modules, "torchaudio", None
    )  # as a wheel for another torch: can't be imported
    args = ["--offline", "--encoder", "openai/whisper-nonesuch", "--lm", str(tmp_path / "none")]
    assert main([*args, "--out", str(tmp_path)]) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad")]
    assert len(bad) == 3
    assert "requirements.lock" in bad[0]
    assert "whisper-nonesuch" in bad[1]
    assert bad[2].startswith("bad  LM:")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_host_that_does_not_answer_is_a_note(monkeypatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setattr("extract.corpora.openslr.MIRRORS", ())
    (finding,) = doctor.check_network()
    assert finding.level == "note"
    assert "does not answer" in finding.what
