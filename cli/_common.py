"""What every command shares: one-line errors, `--debug`, help that shows defaults.

Must not know what any command does.
"""

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from omni.errors import OmniError


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows each default once, where there is one, and keeps the description's line breaks."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser with the house's help format and the `--debug` switch."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", help="show the full trace of an error")
    return parser


def run(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `command`, and turn an `OmniError` into one line and an exit status.

    Returns:
        The exit status: what `command` returned, the error's own, or 130 after Ctrl-C.
    """
    args = parser.parse_args(argv)
    warnings.showwarning = _one_line
    try:
        return command(args)
    except OmniError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
        return 130


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line, without the code that gave it."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
