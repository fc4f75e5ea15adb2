"""Does the stream keep up with a card? Batches with no LM behind them, beside what a card would take.

`python -m bench.train --starve`. Hours of audio a second: as they are stored, augmented on the host (as on a
CPU), and with the small draws alone (as on a card, which does the rest itself); in a thread and in
worker processes. Beside them a d12's need, computed: no card is asked. Must not know the step.
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any

from bench.card.training import FRAMES, TEXT, step_flops
from omni.bridge.projector import build_projector
from omni.nanochat.memory import depth_config, parameter_groups
from train.augment import Augmentation
from train.options import TrainOptions
from train.passes import BatchRule, Shard
from train.stream import StreamSpec, batches

FRAMES_A_SECOND = 50
FORMULA = (
    "operations of a step = 4 x LM weights x positions (2 forward, 2 backward to the inputs; the "
    "weights are frozen) + 4 x lm_head x supervised positions + 6 x projector weights x soft tokens"
)


def starve(shards: Sequence[Shard], steps: int, workers: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:  # fmt: skip
    """Rates of the stream by what it does and by workers, and what a d12 takes.

    Args:
        steps: batches of each measurement, after a first one that is not counted.
        workers: numbers of processes to try.
    """
    options = TrainOptions()
    change = Augmentation(options.noise, options.gain, options.mask, options.stretch)
    rule = BatchRule(options.batch_size, 0, options.buffer)
    ways = {
        "stored": StreamSpec(shards, 0, rule),
        "augmented": StreamSpec(shards, 0, rule, augment=change),
        "drawn": StreamSpec(shards, 0, rule, draw=change.draw),
    }
    rates = {
        f"{way}, {n} workers": _rate(spec, n, steps) for n in workers for way, spec in ways.items()
    }
    need = {f"d12 at {peak} TFLOP/s": need_of(12, peak * 1e12) for peak in (80, 400)}
    return {"audio_hours_per_s": rates, "takes_audio_hours_per_s": need, "formula": FORMULA}


def _rate(spec: StreamSpec, workers: int, steps: int) -> float:
    """Hours of audio a second."""
    stream = batches(spec, workers=workers)
    next(stream)
    begin, frames = time.perf_counter(), 0
    for packed in itertools.islice(stream, steps):
        frames += int(packed.lengths.sum())
    seconds = time.perf_counter() - begin
    stream.close()
    return frames / FRAMES_A_SECOND / 3600 / seconds


def need_of(depth: int, rate: float) -> float:
    """Hours of audio a second that a nanochat of this depth takes at `rate` operations a second, at
    the recipe's batch of utterances as long as train-clean-100's (12.7 s)."""
    config, options = depth_config(depth), TrainOptions()
    groups = parameter_groups(config)
    projector = build_projector(
        options.projector, d_in=512, n_embd=config.n_embd, kv_dim=config.kv_dim,
        n_ve=groups["value_embeds"] // (config.vocab_size * config.kv_dim),
        stack=options.stack, hidden=options.hidden,
    )  # fmt: skip
    rows = options.batch_size
    n_soft, n_text = projector.output_length(FRAMES), len(TEXT.split()) + 1
    positions = n_soft + n_text + 4  # bos, user, user_end, assistant
    flops = step_flops(config, rows * positions, rows * n_text, projector, rows * n_soft)
    return rows * FRAMES / FRAMES_A_SECOND / 3600 / (flops / rate)
