"""Tensor files from outside: safetensors, torch's own, and sharded ones, read without running them.

A file may come from a stranger or be half of what it was: what is read is never larger than the file,
and a number that is none is found here, by its tensor's name. Must not know whose tensors they are.
"""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors
import torch
from torch import Tensor
from typing_extensions import TypedDict

from omni.errors import OmniError, brief
from omni.formats.checked import read_json

INDEX_SUFFIX = ".index.json"  # of the file that says which shard holds which tensor
_MEND = "copy it again"


class _Index(TypedDict):
    """`model.safetensors.index.json`, as transformers writes it."""

    weight_map: dict[str, str]


def read_tensors(
    file: Path, wanted: Callable[[str], bool] = lambda key: True, mmap: bool = True
) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, of torch's own format, or of all shards that an index names.

    Args:
        file: told apart by its suffix; `*.index.json` is an index.
        wanted: which of them are read.
        mmap: as `read_torch` takes it.

    Raises:
        OmniError: damaged, no plain dict of tensors, or an index that leaves its folder.
    """
    if file.name.endswith(INDEX_SUFFIX):
        return _read_shards(file, wanted, mmap)
    if file.suffix == ".safetensors":
        return _read_safetensors(file, wanted)
    state = read_torch(file, mmap)
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise OmniError(
            "the file holds no plain state dict of tensors",
            where=str(file),
            mend="a model's weights alone do; optimiser files and whole training states don't",
        )
    return {key: value for key, value in state.items() if wanted(key)}


def shard_names(index: Path) -> list[str]:
    """The shards that an index names, all beside it.

    Raises:
        OmniError: no index, or one that leaves its folder.
    """
    return sorted(set(_shard_places(index).values()))


def read_torch(file: Path, mmap: bool = True) -> Any:
    """What `torch.save` wrote: tensors, numbers, strings, lists and dicts; nothing in it can run.

    Args:
        mmap: map the tensors from disk; then they must be copied before the file can change. The
            format before torch 1.6 can't be mapped, and is not.

    Raises:
        OmniError: truncated, no torch file, code in it, or tensors larger than the file.
    """
    size = _size(file)
    is_zip = _check_zip(file, size)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and is_zip)
    except Exception as error:  # torch raises a different kind for each way to be damaged
        if type(error).__name__ == "UnpicklingError":
            raise OmniError(
                "the file holds other things than tensors, which could run code; not loaded",
                where=str(file),
                mend="take it from a source you trust",
            ) from error
        raise OmniError(
            f"truncated or no torch checkpoint ({brief(error)})", str(file), _MEND
        ) from error
    _check_storages(content, file, size)
    return content


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinite weights; one pass over each tensor, nothing as large as it is made.

    Raises:
        OmniError: names the first such tensor.
    """
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            low, high = torch.aminmax(tensor.detach())  # a NaN anywhere makes both NaN
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise OmniError(
                    f"{key} holds numbers that are not finite (NaN or infinite)",
                    where,
                    "use a checkpoint from before the training diverged, or copy it again",
                )


def _read_safetensors(file: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    _size(file)
    try:
        # Its reader checks the header's length, its JSON and every offset against the file.
        with safetensors.safe_open(str(file), framework="pt") as handle:
            keys = [key for key in handle.keys() if wanted(key)]  # noqa: SIM118
            return {key: handle.get_tensor(key) for key in keys}
    except Exception as error:  # its own error, a RuntimeError for a dtype torch lacks, …
        raise OmniError(f"damaged safetensors ({brief(error)})", str(file), _MEND) from error


def _read_shards(index: Path, wanted: Callable[[str], bool], mmap: bool) -> dict[str, Tensor]:
    """All shards beside the index, each read once, for the keys that the index gives it."""
    places = _shard_places(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted({name for key, name in places.items() if wanted(key)}):
        mine = {key for key, shard in places.items() if shard == name and wanted(key)}
        tensors |= read_tensors(index.parent / name, mine.__contains__, mmap)
    missing = sorted(key for key in places if wanted(key) and key not in tensors)
    if missing:
        raise OmniError(
            f"shard {places[missing[0]]} lacks {missing[0]}, which the index puts there",
            str(index),
            _MEND,
        )
    return tensors


def _shard_places(index: Path) -> dict[str, str]:
    """Shard of each key; every shard lies beside the index."""
    places = read_json(index, _Index, _MEND)["weight_map"]
    for name in set(places.values()):
        plain = PurePosixPath(name).name == name and "\\" not in name and not name.startswith(".")
        if not plain or not name.endswith((".safetensors", ".bin")):
            raise OmniError(
                f"the index names {name[:100]!r}, which is no shard beside it",
                str(index),
                "take it from a source you trust",
            )
    return places


def _size(file: Path) -> int:
    """Bytes of a regular file.

    Raises:
        OmniError: it is not there, not a file, or can't be read.
    """
    try:
        if not file.is_file():
            raise OmniError(f"no {file.name}", str(file.parent), _MEND)
        with file.open("rb") as handle:
            return os.fstat(handle.fileno()).st_size
    except OSError as error:
        raise OmniError(f"can't read ({error.strerror or error})", str(file)) from error


def _check_zip(file: Path, size: int) -> bool:
    """Whether it is a zip. torch stores its records as they are: a compressed one, or more than the
    file has, is a bomb."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception:  # no zip: the old format, or damage that torch will tell
        return False
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise OmniError(
            "the file unpacks to more than it is; not loaded",
            str(file),
            "take it from a source you trust",
        )
    return True


def _check_storages(content: Any, file: Path, size: int) -> None:
    """Tensors that are plain ones, none larger than its storage, all storages in the file's bytes."""
    bomb = OmniError(
        "its tensors claim more than the file holds; not loaded",
        str(file),
        "take it from a source you trust",
    )
    stack, seen, storages = [content], set(), {}
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor):
            if item.layout is not torch.strided or item.device.type != "cpu" or item.is_quantized:
                raise OmniError("a tensor that is sparse, quantised or empty", str(file), _MEND)
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if item.numel() * item.element_size() > storage.nbytes():
                raise bomb
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))  # a hostile one may hold itself
            stack.extend(item.values() if isinstance(item, dict) else item)
    if sum(storages.values()) > size:
        raise bomb
