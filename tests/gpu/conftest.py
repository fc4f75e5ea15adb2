"""Every test here runs on a card (`pytest -m gpu`, skipped without one) and, so that it stays whole
where there is none, on the CPU."""

import pytest
import torch

CARDS = torch.cuda.device_count() if torch.cuda.is_available() else 0


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """ "cuda" or, for a trial of the test, "cpu"."""
    if request.param == "cuda" and not CARDS:
        pytest.skip("needs a CUDA device, and torch sees none")
    return str(request.param)


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.gpu), False], ids=["cuda", "cpu"])
def two_devices(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two cards or, for a trial of the test, the CPU twice."""
    if request.param and CARDS < 2:
        pytest.skip(f"needs two CUDA devices, and torch sees {CARDS}")
    return ("cuda:0", "cuda:1") if request.param else ("cpu", "cpu")
