"""An evaluation shared by several processes: who does which batch, and how the parts come together.

Whole batches are dealt, so that each is computed as one process would compute it, and the figures are
the same. Must not know how processes talk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from omni.formats.shards import Sample


class Gather(Protocol):
    """What each process gives, in order of rank, to all of them."""

    def __call__(self, mine: Any, /) -> list[Any]: ...


@dataclass(frozen=True)
class Share:
    """This process among those that evaluate together; all of them call `gather` alike."""

    rank: int = 0
    world: int = 1
    gather: Gather = lambda mine: [mine]

    def batches(self, n: int, batch_size: int) -> list[range]:
        """The batches of range(n) that are this process's, in order."""
        begins = range(0, n, batch_size)[self.rank :: self.world]
        return [range(begin, min(begin + batch_size, n)) for begin in begins]


ALONE = Share()


def in_order(samples: Sequence[Sample]) -> list[Sample]:
    """As they are scored: neighbours in length share a batch; the id breaks ties, so the order is
    always the same."""
    return sorted(samples, key=lambda s: (s.features.shape[-2], s.meta["id"]))
