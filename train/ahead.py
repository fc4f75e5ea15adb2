"""Work done before it is asked for: in a thread of this process, or in processes of their own.

Must not know what is worked on.
"""

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Generator, Mapping
from functools import partial
from typing import Any, TypeVar

from torch.utils.data import DataLoader, IterableDataset

T = TypeVar("T")
MOST_WORKERS = 8  # by default: what the fastest card takes of the recipe's batches with a d12
WORKER_DEPTH = 2  # batches that each worker keeps ready


def choose_workers(device: str, cores: int, ranks: int, batch_bytes: int, shared_bytes: int) -> int:
    """Worker processes of a run that names none.

    Results never hang on it. A CPU has none to spare. Beside a card each rank leaves a core to the
    process that feeds it, and has workers for the others of its share, up to MOST_WORKERS. Workers
    hand their batches over in shared memory, of which a container may have too little for any.

    Args:
        device: "cpu" or "cuda", with or without a number.
        cores: that this process may run on.
        ranks: processes like this one that share them.
        batch_bytes: of the largest batch of this rank.
        shared_bytes: that can be had.
    """
    if not device.startswith("cuda"):
        return 0
    room = shared_bytes // (ranks * (WORKER_DEPTH + 1) * max(batch_bytes, 1))
    return max(min(MOST_WORKERS, cores // ranks - 1, room), 0)


def ranks_here(environment: Mapping[str, str]) -> int:
    """Ranks on this machine, as torchrun says; alone it is 1."""
    told = environment.get("LOCAL_WORLD_SIZE", "")
    return max(int(told), 1) if told.isdigit() else 1


def shared_memory_here() -> int:
    """Bytes of shared memory that are free; where there is no folder of it, as many as one likes."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return sys.maxsize


def cores_here() -> int:
    """Cores that this process may run on: a scheduler may have given it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ahead(source: Generator[T], depth: int) -> Generator[T]:
    """The items of `source`, computed up to `depth` ahead in a thread; its errors come along.

    When this generator ends, the thread has ended, and with it `source` and what that reads ahead: a
    thread that is still in torch when Python ends would abort the process.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, item: Any) -> None:
        while not stop.is_set():
            try:
                return items.put((kind, item), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            # Not left to its last reference: a traceback may hold that for long.
            with contextlib.closing(source):
                for item in source:
                    put("item", item)
                    if stop.is_set():
                        return
            put("end", None)
        except BaseException as error:  # handed to the consumer, which raises it
            put("error", error)

    thread = threading.Thread(target=work, daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            kind, item = items.get()
            if kind == "item":
                yield item
            elif kind == "error":
                raise item
            else:
                return
    finally:
        stop.set()
        thread.join()


def in_workers(source: IterableDataset, workers: int, depth: int, pin: bool) -> Generator[Any]:
    """The items of worker processes in turn, which end with this generator or with this process.

    Args:
        source: asks `get_worker_info` for its part.
        depth: items that each of them keeps ready.
        pin: a thread of this process calls `pin_memory` of each item.
    """
    loader = DataLoader(
        source, batch_size=None, num_workers=workers, prefetch_factor=depth, collate_fn=_same,
        worker_init_fn=partial(_end_with_parent, os.getpid()), pin_memory=pin,
    )  # fmt: skip
    items = iter(loader)
    try:
        yield from items
    finally:
        # A traceback may hold this frame for long; torch ends the workers only once it is gone.
        items._shutdown_workers()  # type: ignore[attr-defined]


def _end_with_parent(parent: int, worker: int) -> None:
    """End this worker when its parent is gone: killed, it can't say goodbye, and a worker that
    waits for a place in its queue would wait for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _same(item: T) -> T:
    return item
