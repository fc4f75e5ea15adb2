"""`--repair` gives back the bytes that were written, whatever became of a shard or its records.

.venv/bin/python -m pytest tests/extract/test_repair.py
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from extract_kit import command, deterministic_bytes
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command that made a split of two shards, and its folder."""
    root = tmp_path_factory.mktemp("repair")
    args = command(noise_tree(root / "c", 6, seconds=0.3), tiny_encoder(root / "e"), root / "out")
    assert main(args) == 0
    return args, root / "out" / "dev-clean"


def edited(name: str, **fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        record = {**json.loads((folder / name).read_text()), **fields}
        (folder / name).write_text(json.dumps(record))

    return change


def written(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data)  # type: ignore[return-value]


def a_pipe(folder: Path) -> None:
    (folder / "dev-clean-000001.json").unlink()
    os.mkfifo(folder / "dev-clean-000001.json")


HARM: dict[str, Callable[[Path], None]] = {
    "a list of another length": edited("dev-clean-000001.json", n_frames=[]),
    "other numbers": edited("dev-clean-000001.json", n_text=[0, 0]),
    "a last id": edited("dev-clean-000001.json", last="x"),
    "a sum": edited("dev-clean-000000.json", n_samples=7),
    "a type": edited("dev-clean-000001.json", n="2"),
    "nested deep": written("dev-clean-000001.json", b"[" * 100_000),
    "an empty tar": written("dev-clean-000000.tar", b""),
    "an index that is none": written("index.json", b"{}"),
    "an index that says otherwise": edited("index.json", n=1, shards=[]),
    "a pipe": a_pipe,
}


@pytest.mark.parametrize("name", HARM)
def test_the_same_bytes_come_back(
    made: tuple[list[str], Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args, folder = made
    before = deterministic_bytes(folder)
    HARM[name](folder)
    assert main(["--verify", str(folder)]) == 1
    assert main([*args, "--repair"]) == 0
    assert main(["--verify", str(folder)]) == 0
    assert deterministic_bytes(folder) == before
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["tar", "json"])
def test_a_folder_in_a_shard_s_place_is_told(
    made: tuple[list[str], Path], suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args, folder = made
    path = folder / f"dev-clean-000000.{suffix}"
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        assert main(["--verify", str(folder)]) == 1
        assert main([*args, "--repair"]) == 1
        assert "a folder stands where a shard should" in capsys.readouterr().err
    finally:
        path.rmdir()
        path.write_bytes(data)
