"""Samples from shards for one reader: a worker of a rank. Which of them, the stream knows.

Each sample is read from its place by the reader that packs it, and by no other. That all of a tar is
as it was written (its sha256, count, first and last id) shows only to who reads all of it: one reader
of the run does, once. Must not know batches, ranks or the order of anything.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from omni.errors import OmniError
from omni.formats import shards as shard_files
from omni.formats.files import locate
from omni.formats.shards import Sample
from train.passes import Shard

Id = tuple[int, int]  # (shard, place in it)


class Reader:
    """Reads what it is asked for, and holds all of it to one width of frames."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._width = 0

    def __call__(
        self, wanted: Mapping[int, Collection[int]], checked: Collection[int] = ()
    ) -> dict[Id, Sample]:
        """The samples at these places of these shards.

        Args:
            wanted: places by shard.
            checked: shards to read to their last byte, and to hold to their sha256.

        Raises:
            OmniError: a damaged shard, or one that disagrees with its index.
        """
        samples: dict[Id, Sample] = {}
        for index in sorted({*wanted, *checked}):
            shard, places = self._shards[index], wanted.get(index, ())
            if index in checked or not shard.ends:
                found = _walk(shard, index in checked)
            else:
                found = shard_files.read_places(shard.path, shard.ends, places)
            for place, sample in found:
                _agree(shard, place, sample)
                self._width = shard_files.same_width(locate(shard.path), sample, self._width)
                if place in places:
                    samples[index, place] = sample
        return samples


def _walk(shard: Shard, check_hash: bool) -> Iterator[tuple[int, Sample]]:
    """(place, sample) of the whole tar."""
    n = 0
    for place, sample in enumerate(shard_files.read_shard(shard.path, check_hash)):
        n += 1
        yield place, sample
    if n != len(shard.n_frames):
        raise OmniError(
            f"{n} samples, the index says {len(shard.n_frames)}",
            where=shard.path,
            mend="extract the shard again",
        )


def _agree(shard: Shard, place: int, sample: Sample) -> None:
    """The sample has the frames that the index says."""
    if place >= len(shard.n_frames):
        return  # told by the count
    got, told = sample.features.shape[-2], shard.n_frames[place]
    if got != told:
        raise OmniError(
            f"sample {sample.key} has {got} frames, the index says {told}",
            where=shard.path,
            mend="extract the shard again",
        )
