"""The commands, one file a verb; a command's first lines say what it does.

Python runs this file before any other of ours, so that Ctrl-C is one line from here on: the rest of
what a command needs to answer takes a moment to import. `cli._common.run` takes over from it.
"""

import os
import sys
from types import TracebackType

AGAIN = "run the same command again to go on from here"
EXIT_INTERRUPTED = 130


def quiet_interrupt(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A hook for uncaught exceptions: Ctrl-C is a line and a status, not a page of traceback."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"interrupted: {AGAIN}", file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)  # Python would end itself by SIGINT, which some callers read as -2


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = quiet_interrupt
