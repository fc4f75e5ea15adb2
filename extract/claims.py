"""One kind of device and one precision a split: its features' last bits depend on both.

What was begun is known from the sidecars there and, until the first one is there, from the claims of
the processes at work: a hidden file each, gone when the process ends. Must not know what is computed.
"""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from omni.errors import OmniError
from omni.formats.files import clear_stale, temporary_path
from omni.formats.shard_writer import SplitSpec, committed_anywhere

_PREFIX = "on-"


class Kind(NamedTuple):
    """What a split is computed on."""

    device: str  # "cpu", "cuda"
    compute: str  # "float32", "float16"

    def __str__(self) -> str:
        return f"{self.device} in {self.compute}"


@contextlib.contextmanager
def claim(spec: SplitSpec, kind: Kind, remade: Collection[int], mixed: bool) -> Iterator[None]:
    """Keep a split to one kind while it is worked on.

    Args:
        remade: shards there that are about to be replaced; theirs does not count.
        mixed: other kinds are allowed; the sidecars say who made what.

    Raises:
        OmniError: another kind has begun the split, or works on it now.
    """
    spec.folder.mkdir(parents=True, exist_ok=True)
    clear_stale(spec.folder)
    mine = temporary_path(spec.folder, f"{_PREFIX}{kind.device}-{kind.compute}")
    try:
        if not mixed:
            _refuse_committed(spec, kind, remade)
            _refuse_claimed(spec.folder, kind)
        mine.touch()
        if not mixed:
            _refuse_claimed(spec.folder, kind)  # of two that come together at least one sees both
        yield
    finally:
        mine.unlink(missing_ok=True)


def _refuse_committed(spec: SplitSpec, kind: Kind, remade: Collection[int]) -> None:
    for shard, sidecar in committed_anywhere(spec):
        where = sidecar.get("environment", {})
        made = Kind(where.get("device_type", kind.device), where.get("compute", kind.compute))
        if shard not in remade and made != kind:
            raise OmniError(
                f"the shards there were made on {made}, this run computes on {kind}",
                str(spec.folder),
                f"finish it on {made.device}, or give --allow-mixed (other last bits), or --overwrite",
            )


def _refuse_claimed(folder: Path, kind: Kind) -> None:
    for path in sorted(folder.glob(f".{_PREFIX}*.tmp")):
        device, _, compute = path.name.split(".")[1].removeprefix(_PREFIX).partition("-")
        if Kind(device, compute) != kind:
            raise OmniError(
                f"another process makes this split on {Kind(device, compute)}, this one on {kind}",
                str(path),
                "choose one kind of device, or give --allow-mixed; remove that file if it was killed",
            )
