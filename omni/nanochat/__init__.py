"""The frozen LM: every era of nanochat, loaded exactly and fed by embeddings."""

from omni.nanochat.build import from_state_dict, random_init
from omni.nanochat.model import NanoChat, NanoChatConfig

__all__ = ["NanoChat", "NanoChatConfig", "from_state_dict", "random_init"]
