"""What every command shares: options, one-line errors, signals, output that any terminal takes.

Must not know what any command does.
"""

import argparse
import codecs
import contextlib
import errno
import getpass
import io
import os
import select
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import cli
from cli._stop import Stopped, stop_signals
from omni.errors import (
    OmniError,
    SaidElsewhere,
    brief,
    is_out_of_memory,
    one_line,
    printable,
)

EXIT_USAGE = 2
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_BROKEN_PIPE = 141  # as a shell shows a program that SIGPIPE ended
LONGEST_MESSAGE = 600  # characters; a library's message can be a page

LESS = "take less at a time: smaller batches"
HALVES = ("batch_size", "utterances")  # options that bound what is held at once

MENDS = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EACCES: "mend its permissions, or choose another place",
    errno.EPERM: "mend its permissions, or choose another place",
    errno.EROFS: "choose another place",
}


def make_parser(prog: str, description: str, positionals: str = "") -> argparse.ArgumentParser:
    """A parser with the house's help format, `--debug` and `--version`.

    Args:
        positionals: what follows the options in the usage line; argparse's own line lists every
            option, and is wrapped otherwise from one Python to the next.
    """
    parser = _Parser(
        prog=prog,
        usage=f"%(prog)s [options] {positionals}".rstrip(),
        description=description,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the full trace of an error")
    parser.add_argument("--version", action=_Version, help="show the version and stop")
    return parser


def run(
    build_parser: Callable[[], argparse.ArgumentParser],
    command: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `command`, and turn whatever ends it into one line and an exit status.

    Returns:
        What `command` returned; an `OmniError`'s own status; 1 where the environment fails (a full
        disk, a folder that can't be written, no memory); 70 for a fault of ours; 128 and the
        signal's number after Ctrl-C, SIGTERM or SIGHUP; 141 where nobody reads the output.
    """
    if sys.excepthook is cli.quiet_interrupt:
        sys.excepthook = sys.__excepthook__
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    ending: BaseException
    less = LESS
    try:
        with stop_signals():
            _take_any_character()
            _name_the_user()
            warnings.showwarning = _one_line
            try:
                args = build_parser().parse_args(argv)
                less = _halved(args)
                return _flushed(command(args))
            except SystemExit as error:  # --help, --version, a wrong option
                _flushed(0)
                raise error
    except (Exception, KeyboardInterrupt) as error:
        ending = error
    end = explain(ending, less)
    if debug:
        traceback.print_exception(ending)
    _let_go_of_output()
    if end.line:
        with contextlib.suppress(OSError):  # standard error may be closed too
            print(printable(end.line), file=sys.stderr, flush=True)
    return end.status


class Ending(NamedTuple):
    """How a command that failed ends: a line for standard error ("" for none), and its status."""

    line: str
    status: int


def explain(error: BaseException, less: str = LESS) -> Ending:
    """One line and an exit status for whatever ended a command.

    Args:
        less: what takes less memory.
    """
    if isinstance(error, Stopped):
        return Ending(f"stopped by {error}: {cli.AGAIN}", 128 + error.number)
    if isinstance(error, KeyboardInterrupt):
        return Ending(f"interrupted: {cli.AGAIN}", cli.EXIT_INTERRUPTED)
    if isinstance(error, SaidElsewhere):
        return Ending("", error.exit_code)
    if isinstance(error, OmniError):
        return Ending(f"error: {error}", error.exit_code)
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return Ending("", EXIT_BROKEN_PIPE)
    if isinstance(error, OSError):
        return Ending(f"error: {_environment(error)}", 1)
    if is_out_of_memory(error):
        full = OmniError("out of memory", one_line(str(error), LONGEST_MESSAGE), less)
        return Ending(f"error: {full}", 1)
    what = brief(error, LONGEST_MESSAGE)
    fault = OmniError(f"internal error: {what}", _place(error), "run again with --debug, report it")
    return Ending(f"error: {fault}", EXIT_INTERNAL)


def _environment(error: OSError) -> OmniError:
    """What the system says, where, and how to mend it where that is plain."""
    name = error.filename
    where = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    said = error.strerror or one_line(str(error), LONGEST_MESSAGE) or type(error).__name__
    if error.strerror:
        said = said[0].lower() + said[1:]
    return OmniError(said, where, MENDS.get(error.errno or 0, ""))


def _halved(args: argparse.Namespace) -> str:
    """The option that halves what a command holds at once, with its value."""
    for name in HALVES:
        value = getattr(args, name, None)
        if isinstance(value, int) and value > 1:
            return f"--{name.replace('_', '-')} {value // 2} takes about half of it"
    return LESS


def _place(error: BaseException) -> str:
    """`folder/file.py:line` of the innermost of our own lines that the error went through."""
    root = Path(__file__).resolve().parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        file = Path(frame.filename)
        if file.is_relative_to(root) and "site-packages" not in file.parts:
            return f"{file.relative_to(root)}:{frame.lineno}"
    return ""


def _flushed(status: int) -> int:
    """The status, once standard output has taken everything: a pipe's end or a full disk shows."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OmniError(
                f"can't write ({error.strerror})",
                "standard output",
                MENDS.get(error.errno or 0, ""),
            ) from error
    return status


def _nobody_reads() -> bool:
    """Whether it is standard output whose reader has gone (`… | head -1`). The system is asked: a
    write that failed may have left nothing to flush."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(what & (select.POLLERR | select.POLLHUP) for _, what in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return False


def _let_go_of_output() -> None:
    """What standard output no longer takes is dropped: Python flushes once more when it exits, and
    would complain in lines and a status of its own."""
    try:
        _flushed(0)
    except (BrokenPipeError, OmniError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _take_any_character() -> None:
    """Standard output writes what its encoding lacks as `\\uXXXX`, which JSON reads as well."""
    codecs.register_error("omni-escape", _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="omni-escape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[i : i + 2].hex() for i in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


def _name_the_user() -> None:
    """A name for a user who has none (`docker run --user`): torch asks for one when it is imported,
    and fails without."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.getuid()}"


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line, without the code that gave it."""
    print(printable(f"warning: {one_line(str(message), LONGEST_MESSAGE)}"), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        """One line, and the status of wrong usage."""
        self.exit(
            EXIT_USAGE,
            f"error: {printable(one_line(message, LONGEST_MESSAGE))} ({self.prog} --help shows all options)\n",
        )


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows each default once, where there is one, and keeps the description's line breaks."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Version(argparse.Action):
    """`--version`, which looks the version up only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print `omni-VERB VERSION` and stop."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("nanochat-omni")
        except PackageNotFoundError:
            found = "(not installed)"
        print(f"{parser.prog} {found}")
        parser.exit()
