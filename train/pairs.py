"""The control with wrong pairs: a text for every audio that is not what was said.

Drawn over the global order of samples, before ranks and batches cut it, so that a batch of one and
the last rank's share are wrong as well. Must not know files or the model.
"""

from bisect import bisect_left
from collections.abc import Sequence

from omni.bridge.frames import derangement
from omni.errors import OmniError
from train.passes import Pool, Shard


class WrongPairs:
    """Texts of other samples, near by in length so that duration gives nothing away.

    Args:
        texts: of every sample of each shard, by place.

    Raises:
        OmniError: all samples say the same: there is no wrong text.
    """

    def __init__(self, shards: Sequence[Shard], texts: Sequence[Sequence[str]]) -> None:
        self.shards, self.texts = shards, texts
        by_length = sorted(
            (shard.n_frames[place], texts[s][place])
            for s, shard in enumerate(shards)
            for place in shard.places
        )
        self._lengths = [n for n, _ in by_length]
        self._said = [text for _, text in by_length]
        if len(set(self._said)) < 2:
            raise OmniError(
                "no wrong pairs: every training utterance says the same",
                where="--shuffle-pairs",
                mend="train on at least two different texts",
            )

    def of_pool(self, pool: Pool) -> list[tuple[str, ...]]:
        """A wrong text for each sample of each batch: a permutation of the pool's own as far as
        that can be, else the nearest other text of all the data."""
        flat = [
            (self.shards[s].n_frames[p], self.texts[s][p], b, k)
            for b, batch in enumerate(pool.batches)
            for k, (s, p) in enumerate(batch)
        ]
        flat.sort()
        said = [text for _, text, _, _ in flat]
        wrong = [[""] * len(batch) for batch in pool.batches]
        for (n, own, b, k), partner in zip(flat, derangement(said), strict=True):
            text = said[partner]
            wrong[b][k] = text if text != own else self._nearest_other(n, own)
        return [tuple(batch) for batch in wrong]

    def _nearest_other(self, n_frames: int, own: str) -> str:
        """The text nearest in length that differs; the shorter of two as near."""
        up = bisect_left(self._lengths, n_frames)
        down = up - 1
        while True:
            if down < 0 or (
                up < len(self._said)
                and self._lengths[up] - n_frames < n_frames - self._lengths[down]
            ):
                text, up = self._said[up], up + 1
            else:
                text, down = self._said[down], down - 1
            if text != own:
                return text
