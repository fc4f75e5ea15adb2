"""The sizes of a nanochat, as its meta writes them.

Must not know the model that is built from them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omni.errors import OmniError


@dataclass(frozen=True)
class NanoChatConfig:
    """The sizes of a model, named as in nanochat's meta (`model_config`).

    `window_pattern` is tiled over the layers ("SSSL"); None means that every layer is L.
    """

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    window_pattern: str | None = None

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_dim(self) -> int:
        """Width of keys, values and value embeddings: n_kv_head * head_dim."""
        return self.n_kv_head * self.head_dim

    @property
    def ve_layers(self) -> list[int]:
        """Layers that have value embeddings, in the eras that know them; the last always does."""
        return [i for i in range(self.n_layer) if i % 2 == (self.n_layer - 1) % 2]


def read_config(model_config: Mapping[str, Any]) -> NanoChatConfig:
    """The sizes in a meta's `model_config`; keys that are not ours are left alone.

    Raises:
        OmniError: a size is missing, or they can't belong to one model.
    """
    known = NanoChatConfig.__dataclass_fields__
    missing = [n for n in known if n not in model_config and n != "window_pattern"]
    mend = "use the meta_*.json that nanochat wrote beside the model"
    if missing:
        raise OmniError(f"model_config lacks {', '.join(missing)}", where="meta", mend=mend)
    config = NanoChatConfig(**{n: model_config[n] for n in known if n in model_config})
    sizes = {n: getattr(config, n) for n in known if n != "window_pattern"}
    wrong = [n for n, size in sizes.items() if not isinstance(size, int) or size < 1]
    if wrong:
        raise OmniError(f"{wrong[0]} is {sizes[wrong[0]]!r}", where="model_config", mend=mend)
    if config.n_embd % config.n_head or config.head_dim % 2 or config.n_head % config.n_kv_head:
        raise OmniError(
            f"width {config.n_embd}, {config.n_head} heads and {config.n_kv_head} kv heads don't "
            "divide evenly",
            where="model_config",
            mend=mend,
        )
    return config


def config_dict(config: NanoChatConfig) -> dict[str, Any]:
    """The config as nanochat's meta writes it."""
    return {key: value for key, value in asdict(config).items() if value is not None}
