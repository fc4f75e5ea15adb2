"""The sizes of a nanochat, as its meta writes them.

Must not know the model that is built from them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from omni.errors import OmniError

LARGEST = 1 << 24  # of any one size: far beyond every nanochat, far below what overflows
# Elements of the rotary table (10 * sequence_len * head_dim), made before any tensor is looked at:
# a quarter of a gigabyte. nanochat's own have 2.6 million.
LARGEST_TABLE = 1 << 26


@with_config(ConfigDict(extra="allow"))
class ModelMeta(TypedDict):
    """What a checkpoint's meta says; other keys are kept, and tell `kind_from_meta` the stage.

    softcap, rope_bf16: nanochat writes neither; a user can, where keys can't tell the era. path,
    source, kind: of the model file, set by `load_checkpoint`.
    """

    model_config: dict[str, Any]
    step: NotRequired[int | None]
    user_config: NotRequired[dict[str, Any] | None]
    softcap: NotRequired[Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] | None]
    rope_bf16: NotRequired[bool | None]
    kind: NotRequired[str | None]
    path: NotRequired[str]
    source: NotRequired[str]


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
        OmniError: a size is missing, absurd, or they can't belong to one model.
    """
    known = NanoChatConfig.__dataclass_fields__
    missing = [n for n in known if n not in model_config and n != "window_pattern"]
    mend = "use the meta_*.json that nanochat wrote beside the model"
    if missing:
        raise OmniError(f"model_config lacks {', '.join(missing)}", where="meta", mend=mend)
    config = NanoChatConfig(**{n: model_config[n] for n in known if n in model_config})
    sizes = {n: getattr(config, n) for n in known if n != "window_pattern"}
    wrong = [n for n, size in sizes.items() if type(size) is not int or not 1 <= size <= LARGEST]
    if wrong:
        value = repr(sizes[wrong[0]])[:50]
        raise OmniError(f"{wrong[0]} is {value}", where="model_config", mend=mend)
    pattern = config.window_pattern
    if pattern is not None and not (isinstance(pattern, str) and len(pattern) <= 1000):
        raise OmniError(f"window_pattern is {repr(pattern)[:50]}", where="model_config", mend=mend)
    if config.n_embd % config.n_head or config.head_dim % 2 or config.n_head % config.n_kv_head:
        raise OmniError(
            f"width {config.n_embd}, {config.n_head} heads and {config.n_kv_head} kv heads don't "
            "divide evenly",
            where="model_config",
            mend=mend,
        )
    if 10 * config.sequence_len * config.head_dim > LARGEST_TABLE:
        raise OmniError(
            f"sequence_len {config.sequence_len:,} with heads of {config.head_dim:,} asks for a "
            "rotary table beyond all bounds",
            where="model_config",
            mend=mend,
        )
    return config


def config_dict(config: NanoChatConfig) -> dict[str, Any]:
    """The config as nanochat's meta writes it."""
    return {key: value for key, value in asdict(config).items() if value is not None}
