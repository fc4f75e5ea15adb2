"""A Ray cluster as the engine: a shard is a task, retried where a node is lost.

Actors hold an encoder each, on a GPU each where there are any. A shard's bytes depend on nothing but
the plan, so a task that is done twice, on whatever node, writes the same file. The output folder must
be one that every node sees. Must not know how a shard is made.
"""

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from extract.pipeline import Job, Stats, extract_shards
from omni.errors import OmniError
from omni.formats.shard_writer import clear_shard
from omni.whisper.encoder import WhisperEncoder, load_encoder

TRIES_A_SHARD = 4
Reference = object  # Ray's, of a value that is there or will be
_SECONDS_TO_DIE = 10.0  # for an actor that was killed


class Method(Protocol):
    """`_Worker.make` of an actor that may be anywhere."""

    def remote(self, job: Reference, shard: int) -> Reference:
        """Begin a shard; the reference becomes its `Stats`."""


class Actor(Protocol):
    """A `_Worker` somewhere in the cluster."""

    make: Method


class Ray(Protocol):
    """What is used of the module `ray`, which may not be installed."""

    exceptions: Any
    remote: Any

    def put(self, value: object) -> Reference: ...
    def get(self, reference: Reference) -> Any: ...
    def kill(self, actor: Actor) -> None: ...
    def cluster_resources(self) -> dict[str, float]: ...
    def wait(
        self, references: list[Reference], *, num_returns: int, timeout: float | None = None
    ) -> tuple[list[Reference], list[Reference]]: ...


def run_ray(
    job: Job,
    encoder: WhisperEncoder,
    shards: list[int],
    workers: int,
    progress: Callable[[Stats], None] | None = None,
    threads: int | None = None,
    address: str | None = None,
) -> Stats:
    """Make the shards on a pool of actors.

    Args:
        job: the split.
        encoder: its name is loaded by every actor, and must give the same weights there.
        shards: those that are missing.
        workers: actors; nodes may join and leave while they work.
        progress: called after every shard.
        threads: CPU threads of an actor's encoder; None: torch's default there.
        address: of the cluster; None: that of RAY_ADDRESS, else one on this machine.

    Raises:
        OmniError: Ray is not installed, other weights on a node, a shard that failed on several
            actors, too many failures. Committed shards stay.
    """
    ray = connect(address)
    on_gpu = encoder.device.type == "cuda"
    job = replace(job, spec=replace(job.spec, folder=job.spec.folder.absolute()))
    job = replace(job, manifest=replace(job.manifest, root=str(Path(job.manifest.root).absolute())))
    shared = ray.put(job)
    actor = ray.remote(
        num_gpus=1 if on_gpu else 0, max_restarts=-1, max_task_retries=TRIES_A_SHARD
    )(_Worker)
    pool: list[Actor] = [
        actor.remote(_portable(encoder.name), encoder.device.type, encoder.hash, threads)
        for _ in range(min(workers, len(shards)))
    ]
    running: dict[Reference, Actor] = {}  # of a task: who works at it
    try:
        return _work_off(ray, pool, shared, job, shards, progress, running)
    finally:
        for worker in pool:
            ray.kill(worker)
        if running:  # killed in mid-shard: once they are gone, nobody writes there
            ray.wait(list(running), num_returns=len(running), timeout=_SECONDS_TO_DIE)
            for shard in shards:
                clear_shard(job.spec, shard)


def connect(address: str | None = None) -> Ray:
    """The ray module, connected.

    Raises:
        OmniError: it is not installed, or the cluster does not answer.
    """
    try:
        import ray
    except ImportError:
        raise OmniError("Ray is not installed", "--engine ray", "pip install -e .[ray]") from None
    if not ray.is_initialized():
        main_thread = threading.current_thread() is threading.main_thread()
        ours = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OmniError("the Ray cluster does not answer", str(address), str(error)) from error
        finally:
            if main_thread and ours is not None:  # Ray's own would end the process without a word
                signal.signal(signal.SIGTERM, ours)
    return cast(Ray, ray)


def cluster_gpus() -> int:
    """GPUs of the cluster."""
    return int(connect().cluster_resources().get("GPU", 0))


def _work_off(
    ray: Ray,
    pool: list[Actor],
    shared: Reference,
    job: Job,
    shards: list[int],
    progress: Callable[[Stats], None] | None,
    running: dict[Reference, Actor],
) -> Stats:
    """Give every idle actor the next shard until none is left; `running` tells who works."""
    total, waiting = Stats(), list(reversed(shards))
    running.update({worker.make.remote(shared, waiting.pop()): worker for worker in pool})
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        worker = running.pop(done)
        try:
            total.add(ray.get(done))
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, OmniError) else error from None
        except ray.exceptions.RayError as error:
            mend = "what is committed stays: run the same command again"
            raise OmniError("a shard failed on every try", str(job.spec.folder), mend) from error
        if total.failures > job.max_failures:
            raise OmniError(f"more than {job.max_failures} utterances failed", str(job.spec.folder))
        if waiting:
            running[worker.make.remote(shared, waiting.pop())] = worker
        if progress:
            progress(total)
    return total


class _Worker:
    """Runs in an actor's process."""

    def __init__(self, name: str, device: str, digest: str, threads: int | None) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        self.encoder = load_encoder(name, device)
        if self.encoder.hash != digest:
            raise OmniError("a node has other weights than the driver", name)

    def make(self, job: Job, shard: int) -> Stats:
        """One shard, whole or not at all."""
        return extract_shards(job, self.encoder, [shard])


def _portable(name: str) -> str:
    """A folder's name as every process of this machine understands it; a hub id as it is."""
    return str(Path(name).expanduser().absolute()) if Path(name).expanduser().is_dir() else name
