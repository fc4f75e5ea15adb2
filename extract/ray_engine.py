"""A Ray cluster as the engine: a shard is a task, retried where a node is lost.

Actors hold an encoder each, on a GPU each where the cluster has any. A shard's bytes depend on nothing but
the plan, so a task that is done twice, on whatever node, writes the same file. The output folder must
be one that every node sees. Must not know how a shard is made.
"""

import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from extract.engines import memory_for
from extract.pipeline import Job, Stats, extract_shards
from extract.placement import Placement
from omni.device import pick_device
from omni.errors import OmniError, enough_memory, one_line
from omni.formats.shard_writer import clear_shard
from omni.whisper.encoder import WhisperEncoder, load_encoder

TRIES_A_SHARD = 4
_PATIENCE = 60.0  # seconds without an actor before a line says so
Reference = object  # Ray's, of a value that is there or will be
_SECONDS_TO_DIE = 10.0  # for an actor that was killed


class Method(Protocol):
    """`_Worker.make` of an actor that may be anywhere."""

    def remote(self, job: Reference, shard: int) -> Reference:
        """Begin a shard; the reference becomes its `Stats`."""


class Ready(Protocol):
    """`_Worker.ready` of an actor that may be anywhere."""

    def remote(self) -> Reference:
        """Ask; the reference is there when the actor stands."""


class Actor(Protocol):
    """A `_Worker` somewhere in the cluster."""

    make: Method
    ready: Ready


class Ray(Protocol):
    """What is used of the module `ray`, which may not be installed."""

    exceptions: Any
    remote: Any

    def put(self, value: object) -> Reference: ...
    def get(self, reference: Reference) -> Any: ...
    def kill(self, actor: Actor) -> None: ...
    def nodes(self) -> list[dict[str, Any]]: ...
    def wait(
        self, references: list[Reference], *, num_returns: int, timeout: float | None = None
    ) -> tuple[list[Reference], list[Reference]]: ...


def run_ray(
    job: Job,
    encoder: WhisperEncoder,
    shards: list[int],
    placement: Placement,
    progress: Callable[[Stats], None] | None = None,
    address: str | None = None,
) -> Stats:
    """Make the shards on a pool of actors.

    Args:
        job: the split.
        encoder: its name is loaded by every actor, and must give the same weights there.
        shards: those that are missing.
        placement: of the actors; one for which the cluster has no room yet gets no shard.
        progress: called after every shard.
        address: of the cluster; None: that of RAY_ADDRESS, else one on this machine.

    Raises:
        OmniError: Ray is not installed, other weights or no card on a node, a shard that failed on
            several actors, too many failures. Committed shards stay.
    """
    ray = connect(address)
    job = replace(job, spec=replace(job.spec, folder=job.spec.folder.absolute()))
    job = replace(job, manifest=replace(job.manifest, root=str(Path(job.manifest.root).absolute())))
    shared = ray.put(job)
    actor = ray.remote(
        num_gpus=1 if placement.device == "cuda" else 0,
        num_cpus=placement.cpus,
        max_restarts=-1,
        max_task_retries=TRIES_A_SHARD,
    )(_Worker)
    pool: list[Actor] = [
        actor.remote(_portable(encoder.name), placement.device, encoder.hash, placement.threads)
        for _ in range(min(placement.actors, len(shards)))
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
        except Exception as error:  # a bare one, where a node is slow to start
            where = str(address or "this machine")
            raise OmniError(
                "the Ray cluster does not answer", where, one_line(str(error))
            ) from error
        finally:
            if main_thread and ours is not None:  # Ray's own would end the process without a word
                signal.signal(signal.SIGTERM, ours)
    return cast(Ray, ray)


def cluster_nodes(address: str | None = None) -> list[dict[str, float]]:
    """Resources of each living node of the cluster.

    Raises:
        OmniError: as `connect`.
    """
    return [node["Resources"] for node in connect(address).nodes() if node["Alive"]]


def _work_off(
    ray: Ray,
    pool: list[Actor],
    shared: Reference,
    job: Job,
    shards: list[int],
    progress: Callable[[Stats], None] | None,
    running: dict[Reference, Actor],
) -> Stats:
    """Give every idle actor the next shard until none is left; `running` tells who works.

    An actor is given nothing before it stands: of those that are asked for, some may find no room as
    long as the others live.
    """
    total, waiting = Stats(), list(reversed(shards))
    coming = {worker.ready.remote(): worker for worker in pool}
    while waiting or running:
        done = _next(ray, [*running, *(coming if waiting else ())], told=bool(running))
        worker = (running if done in running else coming).pop(done)
        try:
            made = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, OmniError) else error from None
        except ray.exceptions.RayError as error:
            mend = "what is committed stays: run the same command again"
            raise OmniError("a shard failed on every try", str(job.spec.folder), mend) from error
        if made is not None:
            total.add(made)
            if total.failures > job.max_failures:
                what = f"more than {job.max_failures} utterances failed"
                raise OmniError(what, str(job.spec.folder))
        if waiting:
            running[worker.make.remote(shared, waiting.pop())] = worker
        if progress and made is not None:
            progress(total)
    return total


def _next(ray: Ray, tasks: list[Reference], told: bool) -> Reference:
    """The first of these to end; a line where for long nobody works."""
    while True:
        done, _ = ray.wait(tasks, num_returns=1, timeout=None if told else _PATIENCE)
        if done:
            return done[0]
        print("the cluster has no room for an actor yet: waiting", file=sys.stderr, flush=True)
        told = True


class _Worker:
    """Runs in an actor's process."""

    def __init__(self, name: str, device: str, digest: str, threads: int | None) -> None:
        self._name, self._device, self._digest, self._threads = name, device, digest, threads
        self._encoder: WhisperEncoder | None = None

    def ready(self) -> None:
        """Returns once there is an encoder.

        Raises:
            OmniError: other weights than the driver's; no card, or too small a one.
        """
        self._load()

    def make(self, job: Job, shard: int) -> Stats:
        """One shard, whole or not at all."""
        encoder = self._load()
        with memory_for(job):
            return extract_shards(job, encoder, [shard])

    def _load(self) -> WhisperEncoder:
        """Not in the constructor: what fails there is told as an actor that died, without a reason."""
        if self._encoder is None:
            if self._threads:
                import torch

                torch.set_num_threads(self._threads)
            with enough_memory(
                "the encoder, on a node", "give a smaller --encoder, or --device cpu"
            ):
                encoder = load_encoder(self._name, pick_device(self._device))
            if encoder.hash != self._digest:
                raise OmniError("a node has other weights than the driver", self._name)
            self._encoder = encoder
        return self._encoder


def _portable(name: str) -> str:
    """A folder's name as every process of this machine understands it; a hub id as it is."""
    return str(Path(name).expanduser().absolute()) if Path(name).expanduser().is_dir() else name
