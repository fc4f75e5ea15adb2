"""Fixtures every test file may use; no test here or below touches the network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WDS_SECURE", "1")

import torch
from hypothesis import settings

# The same examples each time: a change is judged by what it changes. `HYPOTHESIS_PROFILE=explore`
# draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# pytest-xdist runs one process a core; more threads would only wait for each other.
torch.set_num_threads(1)
