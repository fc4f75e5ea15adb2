"""Ray writes what one process writes, with an actor killed in the middle.

.venv/bin/python -m pytest -m slow tests/test_extract_ray.py
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from speech_kit import noise_tree, tiny_encoder
from test_extract import command, deterministic_bytes

from cli.extract import main
from omni.errors import OmniError


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ray_workers_one_killed_write_the_same_bytes(cluster, tmp_path: Path) -> None:
    corpus = noise_tree(tmp_path, 80, seconds=2.0)
    encoder = tiny_encoder(tmp_path / "tiny")
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert main(command(corpus, encoder, whole)) == 0
    killed: list[int] = []

    def kill_one() -> None:
        """SIGKILL the process whose pid is in the name of a half-written shard's file."""
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if any((shared / "dev-clean").glob("*-000000.json")):
                for path in (shared / "dev-clean").glob(".dev-clean-*-*.tmp"):
                    killed.append(int(path.name.removesuffix(".tmp").rpartition("-")[2]))
                    os.kill(killed[0], signal.SIGKILL)
                    break
            time.sleep(0.001)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert main(command(corpus, encoder, shared, "--engine", "ray", "--ray-workers", "2")) == 0
    killer.join()
    assert killed, "no worker was killed: nothing is proven"
    assert deterministic_bytes(shared / "dev-clean") == deterministic_bytes(whole / "dev-clean")


def test_ray_that_is_missing_is_told(monkeypatch) -> None:
    from extract.ray_engine import connect

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OmniError, match=r"\.\[ray\]"):
        connect()
