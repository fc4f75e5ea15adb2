"""Reader of CTranslate2 model files (`model.bin`): Whisper's tensors under transformers' names.

The file, little-endian throughout (a string is a uint16 length, then that many bytes with a final
zero):

    uint32  version of the container (6)
    string  name of the specification ("WhisperSpec"), uint32 its revision (3)
    uint32  number of variables, then for each
        string name, uint8 rank, rank x uint32 dimensions, uint8 dtype, uint32 bytes, the data
    uint32  number of aliases, then for each: string alias, string variable

Differences from transformers: query, key and value are one linear (self attention) or key and value
are (cross attention); the key's bias, which Whisper does not have, is there as zeros. Must not know
where files come from.
"""

import struct
from pathlib import Path

import numpy as np

from omni.errors import OmniError

_VERSION = 6
_SPEC = "WhisperSpec"
# CTranslate2's DataType enumeration; quantised models are not ours to read.
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_whisper(blob: bytes | Path) -> dict[str, np.ndarray]:
    """All weights of a CTranslate2 Whisper under the names of transformers' WhisperModel.

    Args:
        blob: the bytes of `model.bin`, or its path.

    Returns:
        `encoder.…` and `decoder.…` arrays in the file's dtype, plus the scalars
        `encoder.num_heads` and `decoder.num_heads`, which the shapes do not tell.

    Raises:
        OmniError: another format or version, a truncated file, a quantised or foreign model.
    """
    where = "model.bin" if isinstance(blob, bytes) else str(blob)
    try:
        variables = read_variables(blob if isinstance(blob, bytes) else blob.read_bytes())
    except (struct.error, UnicodeDecodeError, ValueError, OSError) as error:
        raise OmniError("not a readable CTranslate2 model", where, str(error)) from error
    try:
        return to_transformers(variables, where)
    except KeyError as error:
        raise OmniError(f"the CTranslate2 model lacks {error}", where) from error
    except ValueError as error:  # a fused linear that can't be cut into equal parts
        raise OmniError("the CTranslate2 model's shapes don't fit", where, str(error)) from error


def read_variables(data: bytes) -> dict[str, np.ndarray]:
    """Every variable and alias of the file, read-only views into `data`."""
    cursor = _Cursor(data)
    version = cursor.number("I")
    if version != _VERSION:
        raise ValueError(f"container version {version}, this reader knows {_VERSION}")
    spec, _revision = cursor.string(), cursor.number("I")
    if spec != _SPEC:
        raise ValueError(f"specification {spec!r}, expected {_SPEC!r}")
    variables = {}
    for _ in range(cursor.number("I")):
        name = cursor.string()
        shape = [cursor.number("I") for _ in range(cursor.number("B"))]
        dtype = cursor.number("B")
        if dtype not in _DTYPES:
            raise ValueError(f"{name}: unknown dtype {dtype}")
        raw = cursor.take(cursor.number("I"))
        variables[name] = np.frombuffer(raw, dtype=_DTYPES[dtype]).reshape(shape)
    for _ in range(cursor.number("I")):
        alias, target = cursor.string(), cursor.string()
        if target not in variables:
            raise ValueError(f"alias {alias} of {target}, which is not there")
        variables[alias] = variables[target]
    if not cursor.at_end():
        raise ValueError("bytes are left after the last alias")
    return variables


def to_transformers(variables: dict[str, np.ndarray], where: str = "") -> dict[str, np.ndarray]:
    """CTranslate2's names and fused linears to transformers' names and single ones."""
    if any(name.endswith("weight_scale") for name in variables):
        raise OmniError("the CTranslate2 model is quantised", where, "use a float16 or float32 one")
    out: dict[str, np.ndarray] = {}
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            out[f"encoder.{conv}.{part}"] = variables[f"encoder/{conv}/{part}"]
    out["decoder.embed_tokens.weight"] = variables["decoder/embeddings/weight"]
    for side in ("encoder", "decoder"):
        out[f"{side}.num_heads"] = variables[f"{side}/num_heads"]
        out[f"{side}.embed_positions.weight"] = variables[f"{side}/position_encodings/encodings"]
        _norm(out, variables, f"{side}.layer_norm", f"{side}/layer_norm")
        n_layers = len(
            {n.split("/")[1] for n in variables if n.startswith(f"{side}/layer_")} - {"layer_norm"}
        )
        for i in range(n_layers):
            _layer(out, variables, f"{side}.layers.{i}", f"{side}/layer_{i}", where)
    return out


def _layer(
    out: dict[str, np.ndarray], variables: dict[str, np.ndarray], to: str, of: str, where: str
) -> None:
    _norm(out, variables, f"{to}.self_attn_layer_norm", f"{of}/self_attention/layer_norm")
    _split(out, variables, f"{to}.self_attn", f"{of}/self_attention/linear_0", "qkv", where)
    _linear(out, variables, f"{to}.self_attn.out_proj", f"{of}/self_attention/linear_1")
    if f"{of}/attention/linear_0/weight" in variables:  # the decoder's cross attention
        _norm(out, variables, f"{to}.encoder_attn_layer_norm", f"{of}/attention/layer_norm")
        _linear(out, variables, f"{to}.encoder_attn.q_proj", f"{of}/attention/linear_0")
        _split(out, variables, f"{to}.encoder_attn", f"{of}/attention/linear_1", "kv", where)
        _linear(out, variables, f"{to}.encoder_attn.out_proj", f"{of}/attention/linear_2")
    _norm(out, variables, f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")
    _linear(out, variables, f"{to}.fc1", f"{of}/ffn/linear_0")
    _linear(out, variables, f"{to}.fc2", f"{of}/ffn/linear_1")


def _split(
    out: dict[str, np.ndarray],
    variables: dict[str, np.ndarray],
    to: str,
    of: str,
    parts: str,
    where: str,
) -> None:
    """A fused linear of `parts` ("qkv" or "kv"), equal rows each, to q_proj, k_proj, v_proj."""
    weights = np.split(variables[f"{of}/weight"], len(parts))
    biases = np.split(variables[f"{of}/bias"], len(parts))
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        out[f"{to}.{part}_proj.weight"] = weight
        if part != "k":
            out[f"{to}.{part}_proj.bias"] = bias
        elif bias.any():
            raise OmniError(f"{of}: the key has a bias, which Whisper's has not", where)


def _linear(out: dict[str, np.ndarray], variables: dict[str, np.ndarray], to: str, of: str) -> None:
    for part in ("weight", "bias"):
        out[f"{to}.{part}"] = variables[f"{of}/{part}"]


def _norm(out: dict[str, np.ndarray], variables: dict[str, np.ndarray], to: str, of: str) -> None:
    out[f"{to}.weight"] = variables[f"{of}/gamma"]
    out[f"{to}.bias"] = variables[f"{of}/beta"]


class _Cursor:
    """Walks through the bytes; a read past the end raises."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.offset = 0

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode()

    def take(self, n: int) -> memoryview:
        if self.offset + n > len(self.data):
            raise ValueError(f"file ends at byte {len(self.data)}, {self.offset + n} needed")
        self.offset += n
        return self.data[self.offset - n : self.offset]

    def at_end(self) -> bool:
        return self.offset == len(self.data)
