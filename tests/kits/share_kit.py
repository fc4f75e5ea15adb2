"""Processes that evaluate together, played by threads."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from omni.evaluation.share import Share

Out = TypeVar("Out")


class Table:
    """Where processes that are threads lay down what they have."""

    def __init__(self, world: int) -> None:
        self.world, self.laid = world, [None] * world
        self.met = threading.Barrier(world, timeout=60)

    def gather_of(self, rank: int) -> Callable[[Any], list[Any]]:
        def gather(mine: Any) -> list[Any]:
            self.laid[rank] = mine
            self.met.wait()
            all_ = list(self.laid)
            self.met.wait()
            return all_

        return gather


def shared(world: int, work: Callable[[Share], Out]) -> list[Out]:
    """What each of `world` processes gets."""
    table = Table(world)
    shares = [Share(rank, world, table.gather_of(rank)) for rank in range(world)]
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(work, shares))
