"""Write docs/commands.md: the help of every command, as the commands print it.

    python -m scripts.write_commands           write the page
    python -m scripts.write_commands --check   exit status 1 if it is not what the commands print

Must not know any command: they are read from pyproject.toml.
"""

import argparse
import importlib
import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"
WIDTH = "100"  # columns; argparse would take the terminal's

HEAD = """\
# Commands
The help of every command as it prints it; written by `python -m scripts.write_commands`.

Every command also takes `--version`. Exit status: 0 done; 1 an error, in one line on standard error
(`--debug` shows its trace); 2 a wrong option; 3 extracted, but some utterances failed; 70 a fault of
this program; 130, 129 and 143 after Ctrl-C, SIGHUP and SIGTERM; 141 where nobody reads the output.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only look")
    check = parser.parse_args(argv).check
    text = page()
    if not check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
    if not same:
        print(f"{PAGE} differs: run python -m scripts.write_commands", file=sys.stderr)
    return 0 if same else 1


def page() -> str:
    """The whole page."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        parts = [HEAD]
        for command, place in scripts.items():
            module = importlib.import_module(place.partition(":")[0])
            parts.append(f"\n## {command}\n```\n{module.build_parser().format_help()}```\n")
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
