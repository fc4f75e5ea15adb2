"""The frozen LM: every era of nanochat, loaded exactly and fed by embeddings."""

from omni.nanochat.build import from_state_dict, random_init
from omni.nanochat.checkpoint import load_checkpoint
from omni.nanochat.config import NanoChatConfig
from omni.nanochat.model import NanoChat
from omni.nanochat.tokenizer import ByteTokenizer, Tokenizer

__all__ = [
    "ByteTokenizer",
    "NanoChat",
    "NanoChatConfig",
    "Tokenizer",
    "from_state_dict",
    "load_checkpoint",
    "random_init",
]
