"""Where the actors of a cluster compute, and how many there are: told by the cluster's nodes alone.

The machine that starts the work may be a head node without a card, or have one that no other has: what
it has itself decides nothing. Must not know Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extract.claims import Kind
from omni.errors import OmniError
from omni.whisper.encoder import default_dtype

_MOST_DECODERS = 16  # threads beside a card; more are not kept busy
_FEWEST_DECODERS = 2


@dataclass(frozen=True)
class Placement:
    """The actors of a run.

    device: of each of them, "cuda" or "cpu". actors: how many, at most. cpus: reserved for each.
    decoders: threads of each that decode. threads: of its encoder on a CPU; None: torch's default.
    """

    device: str
    actors: int
    cpus: int
    decoders: int
    threads: int | None = None

    @property
    def kind(self) -> Kind:
        """What a split made by these actors is computed on."""
        return Kind(self.device, str(default_dtype(self.device)).removeprefix("torch."))


def place(
    nodes: Sequence[Mapping[str, float]],
    device: str = "auto",
    actors: int | None = None,
    threads: int | None = None,
) -> Placement:
    """Actors for a cluster: one for each card or, without cards, for each `threads` CPUs of a node.

    Args:
        nodes: resources of each, as Ray counts them: "CPU", "GPU".
        device: "auto" (cards where the cluster has some), "cuda" or "cpu".
        actors: how many are asked for; None: as many as the cluster has room for. They may be more
            than that: nodes may join.
        threads: of an encoder on a CPU; None: all of the smallest node, so that no node is too small.

    Raises:
        OmniError: a card is asked for by its number, or where the cluster has none and no number of
            actors says that nodes will come.
    """
    if device.startswith("cuda:"):
        raise OmniError("a cluster deals its cards itself", f"--device {device}", "--device cuda")
    cards = sum(int(node.get("GPU", 0)) for node in nodes)
    if device == "cuda" and not cards and not actors:
        raise OmniError(
            "the cluster has no GPU", "--device cuda",
            "--device cpu, or --ray-workers N if nodes with GPUs join when they are needed",
        )  # fmt: skip
    if device == "cuda" or (device == "auto" and cards):
        beside = [
            int(n.get("CPU", 0) // int(n["GPU"])) for n in nodes if int(n.get("GPU", 0))
        ]  # CPUs for each card of a node
        decoders = min(max(min(beside, default=_FEWEST_DECODERS), _FEWEST_DECODERS), _MOST_DECODERS)
        return Placement("cuda", actors or cards, 1, decoders, threads)
    sizes = [int(node.get("CPU", 0)) for node in nodes]
    able = [size for size in sizes if size] or [1]
    threads = threads or min(able)
    room = sum(size // threads for size in able)
    return Placement("cpu", actors or max(room, 1), threads, _FEWEST_DECODERS, threads)
