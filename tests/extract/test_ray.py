"""Ray writes what one process writes, with an actor killed in the middle.

.venv/bin/python -m pytest -m slow tests/extract/test_ray.py
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from extract_kit import command, deterministic_bytes
from kill_kit import died
from places import KITS, ROOT
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main
from extract import ray_engine
from omni.errors import OmniError

RAY = ("--engine", "ray", "--ray-workers", "2")


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2,
        num_gpus=2,  # Ray believes it
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _system_config={"worker_niceness": 0},  # by default 15, which starves beside other tests
    )
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ray_workers_one_killed_write_the_same_bytes(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = noise_tree(tmp_path, 40, seconds=2.0)
    encoder = tiny_encoder(tmp_path / "tiny")
    whole, shared, marker = tmp_path / "whole", tmp_path / "shared", tmp_path / "killed"
    assert main(command(corpus, encoder, whole)) == 0
    worker, tests = ray_engine._Worker, str(KITS)

    class Mortal(worker):  # the actor as it is, in a process that one SIGKILL ends
        def __init__(self, *args: object) -> None:
            sys.path.insert(0, tests)
            from kill_kit import die_in_mid_shard

            die_in_mid_shard(marker)
            super().__init__(*args)

    monkeypatch.setattr(ray_engine, "_Worker", Mortal)
    assert main(command(corpus, encoder, shared, *RAY)) == 0
    assert died(marker).startswith(".dev-clean-0000")
    assert deterministic_bytes(shared / "dev-clean") == deterministic_bytes(whole / "dev-clean")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_workers_fit_windows_as_one_process_does(cluster, tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 9, seconds=3.0)
    encoder = tiny_encoder(tmp_path / "tiny")
    one, exact, shared = (tmp_path / name for name in ("one", "exact", "shared"))
    fit = ("--window", "fit", "--margin", "1")
    assert main(command(corpus, encoder, exact)) == 0
    assert main(command(corpus, encoder, one, *fit)) == 0
    assert main(command(corpus, encoder, shared, *fit, *RAY)) == 0
    fitted = deterministic_bytes(shared / "dev-clean")
    assert fitted == deterministic_bytes(one / "dev-clean")
    assert (
        fitted["dev-clean-000000.tar"]
        != deterministic_bytes(exact / "dev-clean")["dev-clean-000000.tar"]
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_actors_are_on_the_clusters_cards_though_the_driver_has_none(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cards are Ray's word alone, so the work itself is done on the CPU. Three actors are asked
    for and two find a card: nobody waits for the third."""
    corpus, notes = noise_tree(tmp_path, 20, seconds=0.5), tmp_path / "notes"
    notes.mkdir()
    folder, worker = tmp_path / "out" / "dev-clean", ray_engine._Worker

    class Noting(worker):
        def __init__(self, name: str, device: str, digest: str, threads: int) -> None:
            claims = [path.name.split(".")[1] for path in folder.glob(".on-*")]
            card = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
            (notes / str(os.getpid())).write_text(f"{device} {card} {claims[0]}")
            super().__init__(name, "cpu", digest, threads)

    monkeypatch.setattr(ray_engine, "_Worker", Noting)
    more = ("--engine", "ray", "--ray-workers", "3")
    args = command(corpus, tiny_encoder(tmp_path / "tiny"), tmp_path / "out", *more)
    args[args.index("--device") + 1] = "auto"
    assert main(args) == 0
    noted = sorted(path.read_text() for path in notes.iterdir())
    assert noted == ["cuda 0 on-cuda-float16", "cuda 1 on-cuda-float16"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_that_is_told_to_end_leaves_whole_shards_and_nothing_else(tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 400, seconds=2.0)
    args = command(corpus, tiny_encoder(tmp_path / "tiny"), tmp_path / "out", *RAY)
    folder = tmp_path / "out" / "dev-clean"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [sys.executable, "-m", "cli.extract", *args],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while driver.poll() is None and not any(folder.glob("*-0*.json")):
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    error = driver.communicate()[1]
    assert driver.returncode == 128 + signal.SIGTERM, error
    assert "Traceback" not in error
    there = [path.name for path in folder.iterdir()]
    assert not [name for name in there if not name.startswith("dev-clean-")]
    assert 0 < len([name for name in there if name.endswith(".json")]) < 100


def test_ray_that_is_missing_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OmniError, match=r"\.\[ray\]"):
        ray_engine.connect()
