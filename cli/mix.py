"""`omni-mix`: extracted splits to a table of tasks, what is asked of each utterance and answered."""

import argparse
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cli import _types
from cli._common import make_parser, run

if TYPE_CHECKING:
    from tasks.mix import Recipe, Texts

DESCRIPTION = """\
Make rows of instructions from utterances and their transcripts: repeat what was said, questions about
the words, the voice, and where nothing is said. Offline, and the same bytes every time.

  omni-mix --shards shards/ --out answers                     into manifests/tasks/answers.parquet
  omni-mix --shards shards/ --out asr --shares repeat=1 --rows 30000
  omni-mix --manifests manifests/train-clean-100.parquet --out answers
  omni-mix --shards shards/dev-clean --out questions --mini   four options alone, to judge by
  omni-mix --look manifests/tasks/answers.parquet             the census of a table
"""
ROWS, MINI_ROWS = 50_000, 200


def shares(text: str) -> dict[str, float]:
    """Shares of a mix, refused while they are parsed."""
    from omni.errors import OmniError
    from tasks.shares import parse_shares

    try:
        return parse_shares(text)
    except OmniError as error:
        raise ArgumentTypeError(error.what) from None


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-mix", DESCRIPTION)
    g = parser.add_argument_group("input")
    g.add_argument("--shards", nargs="+", default=[], metavar="DIR", type=_types.some,
        help="folders of extracted splits")  # fmt: skip
    g.add_argument("--manifests", nargs="+", default=[], metavar="FILE", type=_types.path,
        help="splits that are listed and need not be extracted yet")  # fmt: skip
    g.add_argument("--chats", type=_types.path, metavar="FILE",
        help="JSONL of chats to replay as text, a conversation a line as nanochat stores it")  # fmt: skip
    g.add_argument("--lm", type=_types.some,
        help="whose own answers to transcripts make the rows of self, and of text without --chats: "
        "a folder, d12, a hub id, auto or demo")  # fmt: skip
    g.add_argument("--licence", default="", metavar="NAME",
        help="of recordings whose licence is not known; LibriSpeech's is")  # fmt: skip
    g = parser.add_argument_group("output")
    g.add_argument("--out", type=_types.path, metavar="NAME",
        help="name of the table, under manifests/tasks/, or a path that ends in .parquet")  # fmt: skip
    g.add_argument("--look", type=_types.path, metavar="FILE", help="only print a table's census")
    g = parser.add_argument_group("mix")
    g.add_argument("--rows", type=_types.whole(4),
        help=f"of the table; {ROWS:,} by default, {MINI_ROWS} with --mini")  # fmt: skip
    g.add_argument("--shares", type=shares, metavar="KIND=SHARE,…",
        help="by default repeat=0.3,content=0.25,voice=0.2,self=0.1,none=0.05,text=0.1, as far as "
        "they can be had")  # fmt: skip
    g.add_argument("--mini", action="store_true",
        help="of splits that evaluate: questions with four options, in wordings that no table for "
        "training holds")  # fmt: skip
    g.add_argument("--shuffle-pairs", action="store_true",
        help="give each row to another utterance: a control, of which nothing can be heard")  # fmt: skip
    g.add_argument("--seed", type=_types.seed, default=0)
    g = parser.add_argument_group("speed")
    g.add_argument("--device", type=_types.device, default="auto",
        help="of the LM: auto, cpu, cuda, cuda:1")  # fmt: skip
    return parser


def command(args: argparse.Namespace) -> int:
    """Make, write and count the table."""
    from omni.errors import OmniError
    from omni.formats.tasks import read_tasks, table_path, write_tasks
    from tasks.census import census, lines
    from tasks.mix import mix
    from tasks.sources import gather

    if args.look:
        print("\n".join(lines(census(read_tasks(args.look)))))
        return 0
    if not (args.shards or args.manifests) or not args.out:
        raise OmniError("nothing to make a table of", "--shards and --out", "give both")
    path = table_path(args.out)
    recipe = _recipe(args)
    sources = gather(args.shards, args.manifests, recipe.role, args.licence, _say)
    kept = path.with_name(f".{path.name}.answers.jsonl")
    texts = _texts(args, kept)
    table = mix(sources, recipe, texts, _say)
    write_tasks(table, path)
    kept.unlink(missing_ok=True)
    print("\n".join([*lines(census(table)), f"written: {path}"]))
    return 0


def _recipe(args: argparse.Namespace) -> "Recipe":
    from tasks.mix import Recipe
    from tasks.shares import DEFAULT

    judges = {"content": 0.8, "none": 0.2}
    return Recipe(
        args.rows or (MINI_ROWS if args.mini else ROWS),
        args.shares or (judges if args.mini else DEFAULT),
        args.seed,
        "eval" if args.mini else "train",
        strict=args.shares is not None,
        shuffled=args.shuffle_pairs,
    )


def _texts(args: argparse.Namespace, kept: Path) -> "Texts":
    from tasks.mix import Texts
    from tasks.replay import read_chats

    chats, record = read_chats(args.chats) if args.chats else ([], None)
    if args.lm is None:
        return Texts(chats, record)
    import torch

    from omni.device import pick_device
    from tasks.own import OwnAnswers

    device = torch.device(pick_device(args.device))
    return Texts(chats, record, OwnAnswers(args.lm, device, kept, _progress()))


def _progress() -> Callable[[int, int], None]:
    """A bar over the LM's answers."""
    from tqdm import tqdm

    bars: list[tqdm[NoReturn]] = []

    def show(done: int, total: int) -> None:
        if not bars:  # once there is something to show
            bars.append(tqdm(desc="own answers", unit="row", total=total, file=sys.stderr))
        bars[0].update(done - bars[0].n)
        if done == total:
            bars.pop().close()

    return show


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
