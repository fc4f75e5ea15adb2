"""omni-doctor names what is there and mends what is not.

.venv/bin/python -m pytest tests/cli/test_doctor.py
"""

import sys

import pytest
import torch

import omni.device.nvidia
from cli import doctor
from cli.doctor import main
from omni.device.nvidia import Nvidia


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


CARD = ("/dev/nvidia0",)


@pytest.mark.parametrize(
    ("nvidia", "built", "words"),
    [
        (Nvidia(CARD, (570, 86), (12, 8)), "13.0", "serves CUDA 12.8 and older: install NVIDIA's driver 580"),
        (Nvidia(("PCI device 0000:01:00.0",)), "12.8", "its driver is not loaded: install NVIDIA's driver 525"),
        (Nvidia(CARD, (580, 65), (13, 0)), None, "built for CPUs alone: install torch and torchaudio with CUDA"),
        (Nvidia(CARD, (580, 65), (13, 0)), "13.0", "No CUDA GPUs are available: give a container the card"),
    ],
)  # fmt: skip
def test_a_card_that_torch_does_not_use_is_bad_and_has_a_mend(
    monkeypatch: pytest.MonkeyPatch, nvidia: Nvidia, built: str | None, words: str
) -> None:
    def init() -> None:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(omni.device.nvidia, "find_nvidia", lambda: nvidia)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", built)
    (finding,) = doctor.check_device()
    assert finding.level == "bad"
    assert words in str(finding)


def test_a_card_without_kernels_in_this_torch_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [("NVIDIA H100", (9, 0)), ("Tesla P100", (6, 0))]
    monkeypatch.setattr(omni.device.nvidia, "find_nvidia", lambda: Nvidia(CARD, (580, 65), (13, 0)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: cards[i][0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: cards[i][1])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_120"])
    versions, good, bad = doctor.check_device()
    assert "driver is 580.65" in versions.what
    assert (good.level, bad.level) == ("ok", "bad")
    assert "P100, compute capability 6.0: this torch has no kernels for it" in bad.what


def test_a_machine_without_a_card_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omni.device.nvidia, "find_nvidia", Nvidia)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = doctor.check_device()
    assert finding.level == "note"
