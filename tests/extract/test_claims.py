"""A split is made on one kind of device and in one precision, by however many processes.

.venv/bin/python -m pytest tests/extract/test_claims.py
"""

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from extract_kit import command, deterministic_bytes
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main
from extract.claims import Kind, claim
from omni.errors import OmniError
from omni.formats.files import temporary_path
from omni.formats.shard_writer import SplitSpec

CPU, CUDA = Kind("cpu", "float32"), Kind("cuda", "float16")


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def begun(encoder_folder: Path, tmp_path: Path) -> list[str]:
    """The command of a split of two shards, the second of which is lost."""
    args = command(noise_tree(tmp_path, 8), encoder_folder, tmp_path / "out")
    assert main(args) == 0
    (tmp_path / "out" / "dev-clean" / "dev-clean-000001.json").unlink()
    return args


def made_on(folder: Path, **environment: str) -> None:
    sidecar = folder / "dev-clean-000000.json"
    content = json.loads(sidecar.read_text())
    content["environment"].update(environment)
    sidecar.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "other",
    [
        {"device_type": "cuda", "compute": "float16"},
        {"device_type": "cuda", "compute": "float32"},
        {"compute": "bfloat16"},
    ],
)
def test_a_split_begun_otherwise_is_refused_and_nothing_lost(
    begun: list[str], tmp_path: Path, other: dict[str, str], capsys
) -> None:
    folder = tmp_path / "out" / "dev-clean"
    made_on(folder, **other)
    before = deterministic_bytes(folder)
    assert main(begun) == 1
    error = capsys.readouterr().err
    assert "this run computes on cpu in float32" in error
    assert "--allow-mixed" in error
    assert deterministic_bytes(folder) == before
    assert main([*begun, "--allow-mixed"]) == 0
    made = [json.loads(p.read_text())["environment"] for p in sorted(folder.glob("*-0*.json"))]
    assert [(m["device_type"], m["compute"]) for m in made] == [
        (other.get("device_type", "cpu"), other["compute"]),
        ("cpu", "float32"),
    ]


def test_a_finished_split_and_one_made_anew_ask_nobody(begun: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "dev-clean"
    assert main(begun) == 0
    made_on(folder, device_type="cuda", compute="float16")
    assert main(begun) == 0  # nothing to make
    assert main([*begun, "--overwrite"]) == 0
    assert not list(folder.glob(".*"))


def spec_of(root: Path) -> SplitSpec:
    return SplitSpec(root / "talks", "talks", "train", {"dtype": "float16"}, 4)


def test_ranks_that_begin_together_are_of_one_kind(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with claim(spec, CPU, [], mixed=False):
        other_rank = temporary_path(spec.folder, "on-cpu-float32").with_name(
            f".on-cpu-float32.{socket.gethostname()}x-7.tmp"
        )
        other_rank.touch()
        with claim(spec, CPU, [], mixed=False):
            pass
        with (
            pytest.raises(OmniError, match="makes this split on cpu"),
            claim(spec, CUDA, [], False),
        ):
            pass
        with claim(spec, CUDA, [], mixed=True):
            pass
    assert [path.name for path in spec.folder.iterdir()] == [other_rank.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OmniError("x"), SystemExit])
def test_a_claim_goes_however_the_run_ends(tmp_path: Path, error: BaseException) -> None:
    with contextlib.suppress(BaseException), claim(spec_of(tmp_path), CPU, [], mixed=False):
        raise error
    assert list((tmp_path / "talks").iterdir()) == []


def test_claims_of_the_dead_are_no_claims(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = tmp_path / "talks"
    folder.mkdir()
    name = f".{{}}.{socket.gethostname()}-{dead.pid}.tmp"
    for what in ("on-cuda-float16", "talks-000007", "index.json"):
        (folder / name.format(what)).write_bytes(b"half")
    with claim(spec_of(tmp_path), CPU, [], mixed=False):
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []
