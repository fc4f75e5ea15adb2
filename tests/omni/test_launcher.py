"""Numbers that torchrun or SLURM leave in the environment, and what else may stand in their place.

.venv/bin/python -m pytest tests/omni/test_launcher.py
"""

import pytest

from extract.engines import Rank, rank_from_environment
from omni.errors import OmniError
from train.ranks import ranks

BAD = [
    {"RANK": "abc", "WORLD_SIZE": "2"},
    {"RANK": "0", "WORLD_SIZE": ""},
    {"RANK": "0", "WORLD_SIZE": "0"},
    {"RANK": "-1", "WORLD_SIZE": "2"},
    {"RANK": "2", "WORLD_SIZE": "2"},
    {"RANK": "1.0", "WORLD_SIZE": "2"},
    {"RANK": "²", "WORLD_SIZE": "4"},
    {"RANK": "0", "WORLD_SIZE": "9" * 5000},
    {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "q"},
    {"SLURM_PROCID": "x", "SLURM_NTASKS": "1"},
]


@pytest.mark.parametrize("environment", BAD)
def test_extraction_names_the_variable_that_is_no_rank(environment: dict[str, str]) -> None:
    with pytest.raises(OmniError, match=r"RANK|WORLD_SIZE|SLURM_PROCID"):
        rank_from_environment(environment)


def test_half_of_the_variables_is_nobodys_rank() -> None:
    assert rank_from_environment({"RANK": "abc"}) == Rank()
    assert rank_from_environment({"RANK": " 1", "WORLD_SIZE": "2"}) == Rank(1, 2, 0)


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"},
        {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "q"},
        {
            **{"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "z"},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        },
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "999999"},
        {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"},
    ],
)
def test_training_names_the_variable_that_leads_to_nobody(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OmniError, match="torchrun"), ranks("cpu"):
        pass
