"""The stream that a run's options ask for, on the device it runs on.

A CPU augments where it reads. A card does it itself, from page-locked memory that worker processes
fill. Must not know the model or the step.
"""

import os
from collections.abc import Generator

from train.ahead import (
    WORKER_DEPTH,
    choose_workers,
    cores_here,
    ranks_here,
    shared_memory_here,
)
from train.augment import Augmentation
from train.data import TrainingData
from train.options import TrainOptions
from train.passes import BatchRule
from train.ranks import Peers
from train.stream import DEPTH, Packed, Position, StreamSpec, batches


def feed(
    options: TrainOptions, data: TrainingData, peers: Peers, start: Position
) -> Generator[Packed]:
    """Batches of a run from `start` on, for this rank and its device.

    Raises:
        OmniError: as `batches`.
    """
    on_card = peers.device.type == "cuda"
    change = Augmentation(options.noise, options.gain, options.mask, options.stretch)
    spec = StreamSpec(
        data.shards,
        options.seed,
        BatchRule(options.batch_size, options.batch_frames, options.buffer),
        peers.rank,
        peers.world,
        augment=change if change.active and not on_card else None,
        shuffle_texts=data.texts if options.shuffle_pairs else None,
        draw=change.draw if change.active and on_card else None,
        asked=data.asked,
    )
    workers = options.workers
    if workers is None:
        workers = choose_workers(
            peers.device.type, cores_here(), ranks_here(os.environ),
            _largest_batch(options, data, peers.world), shared_memory_here(),
        )  # fmt: skip
    depth = WORKER_DEPTH if workers else DEPTH
    return batches(spec, start, workers, pin=on_card, depth=depth)


def _largest_batch(options: TrainOptions, data: TrainingData, world: int) -> int:
    """Bytes of a rank's share of it, at most."""
    sample = next(iter(data.eval_sets.values()))[0].features
    longest = max(max(shard.n_frames) for shard in data.shards)
    frames = max(options.batch_frames, longest) if options.batch_frames else options.batch_size * longest  # fmt: skip
    return -(-frames // world) * sample.nbytes // sample.shape[-2]
