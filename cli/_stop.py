"""SIGTERM and SIGHUP end a command as Ctrl-C does: an exception in the main thread, so that every
`finally` runs, workers are waited for and temporary files go.

Must not know what any command does.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal.

    A kind of KeyboardInterrupt, because that is what the worker processes of others, forked from
    this one, know how to end by.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise `Stopped` in the main thread, SIGINT KeyboardInterrupt.

    The first one counts. A terminal that closes sends SIGHUP twice, and who sends SIGTERM often
    sends SIGHUP too: a second one must not break the cleaning up. Ctrl-C may: somebody waits.
    What is ignored when the command starts (nohup, a shell's background job) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping and number != signal.SIGINT:
            return
        stopping = True
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
