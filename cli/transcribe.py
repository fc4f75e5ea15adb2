"""`omni-transcribe`: what the LM of a trained run hears in audio files."""

import argparse
import contextlib
import itertools
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

from cli import _types
from cli._common import make_parser, run
from omni.device import LM_DTYPES
from omni.encoder import DEFAULT_ENCODER

if TYPE_CHECKING:
    import numpy as np

    from omni.transcriber import Transcript

DESCRIPTION = """\
Write down what the LM of a trained run hears, or what it answers about it.

  omni-transcribe talk.flac                  with the newest run
  omni-transcribe --run runs/mine *.mp3      one line a file
  omni-transcribe --run runs/answers --ask "What is the last word?" talk.flac
  arecord -r 48000 -d 5 | omni-transcribe -  from standard input

Any format that libsndfile reads (wav, flac, mp3, ogg), with the extra media m4a, webm, aac and wma
too; any rate, mono or stereo. Recordings longer than the run's utterances, or than 30 s, are cut at
pauses; silence is not decoded. Exit status: 0, or 1 if a file could not be read.
"""


def build_parser() -> argparse.ArgumentParser:
    """All options, in groups."""
    parser = make_parser("omni-transcribe", DESCRIPTION, "FILE [FILE ...]")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=_types.some,
        help="audio files; - is standard input",
    )
    g = parser.add_argument_group("model")
    g.add_argument(
        "--run", type=_types.path, metavar="DIR", help="a run's folder; else the newest one"
    )
    g.add_argument("--runs", type=_types.path, metavar="DIR",
        help="where the newest run is looked for; else runs/, then demo/runs/")  # fmt: skip
    g.add_argument("--checkpoint", default="best", choices=["best", "last", "init"],
        help="which projector of the run")  # fmt: skip
    g.add_argument("--lm", type=_types.some, help="where the run's LM lies now, if it was moved")
    g.add_argument("--lm-dtype", default="auto", choices=["auto", *LM_DTYPES],
        help="what the LM computes in; auto: fp32 on a CPU, bf16 on a card, fp16 on one without bf16")  # fmt: skip
    g.add_argument("--lora-scale", type=_types.number(0, 1.5), default=1.0,
        help="of the run's adapters; 0: none")  # fmt: skip
    g.add_argument("--encoder", type=_types.some, default=DEFAULT_ENCODER,
        help="folder or hub id")  # fmt: skip
    g = parser.add_argument_group("decoding")
    g.add_argument("--ask", type=_types.some, metavar="TEXT",
        help="what is asked of each piece, for a run that learnt to answer; else the run's own prompt")  # fmt: skip
    g.add_argument("--temperature", type=_types.number(), default=0.0, help="0: greedy")
    g.add_argument("--top-k", type=_types.whole(1), help="sample among the k best tokens only")
    g.add_argument("--seed", type=_types.seed, default=0, help="of the sampling")
    g.add_argument("--max-new", type=_types.whole(1),
        help="most tokens a chunk; else it follows the chunk's length")  # fmt: skip
    g.add_argument("--chunk-seconds", type=_types.number(0.1, 600),
        help="longest piece in one row; else the run's longest utterance, at most 30")  # fmt: skip
    g = parser.add_argument_group("output")
    g.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    g = parser.add_argument_group("speed")
    g.add_argument("--device", type=_types.device, default="auto", help="auto, cpu, cuda, cuda:1")
    g.add_argument("--batch-size", type=_types.whole(1), default=8, help="chunks decoded together")
    return parser


def command(args: argparse.Namespace) -> int:
    """Load the run, transcribe the files that can be read, and print a line for each."""
    from omni.device import pick_device
    from omni.errors import enough_memory, halved
    from omni.evaluation.decode import Sampling
    from omni.runs import load_run, newest_run
    from omni.transcriber import load_transcriber

    turns: deque[Turn] = deque()
    waves = read_files(args.files, turns)
    first = next(waves, None)  # what can't be read needs no models
    failed = 0
    if first is not None:
        # Standard output is for transcripts alone.
        with contextlib.redirect_stdout(sys.stderr):
            trained = load_run(args.run) if args.run else newest_run(args.runs)
            print(f"run: {trained.path}")
            device = pick_device(args.device)
            with enough_memory("the models", "give --device cpu, or a card with more memory"):
                transcriber = load_transcriber(
                    trained,
                    args.checkpoint,
                    args.lm,
                    args.encoder,
                    device,
                    args.lm_dtype,
                    args.lora_scale,
                )
        if args.ask:
            # As in training: a blank is between the audio and what is asked.
            transcriber.template = replace(transcriber.template, prompt=f" {args.ask}")
        sampling = Sampling(args.temperature, args.top_k, args.seed)
        shorter = f"--chunk-seconds {transcriber.chunk_seconds / 2:g} halves it"
        mend = halved(args.batch_size, "--batch-size", shorter)
        waves = itertools.chain([first], waves)
        del first  # an hour of samples
        with enough_memory(f"{args.batch_size} chunks at a time", mend):
            for heard in transcriber.stream(
                waves, args.chunk_seconds, args.max_new, sampling, args.batch_size
            ):
                failed += _say_failures(args, turns)
                _say(args, turns.popleft().file, heard)
    failed += _say_failures(args, turns)
    return 1 if failed else 0


class Turn(NamedTuple):
    """A file whose line is due. error: why it can't be read; empty if it was."""

    file: str
    error: str


def read_files(files: Sequence[str], turns: deque[Turn]) -> Iterator["np.ndarray"]:
    """Waves of the files that can be read, each when it is asked for; all of them get their turn."""
    from omni.audio import load_audio
    from omni.errors import OmniError

    for file in files:
        try:
            wave = load_audio(sys.stdin.buffer.read() if file == "-" else file)
        except OmniError as error:
            turns.append(Turn(file, str(error)))
            continue
        turns.append(Turn(file, ""))
        yield wave
        del wave  # before the next is read


def _say(args: argparse.Namespace, file: str, heard: "Transcript") -> None:
    """A transcript's line."""
    from omni.errors import printable

    if args.json:
        print(json.dumps({"file": file, **asdict(heard)}, ensure_ascii=False))
    else:
        print(printable(heard.text if len(args.files) == 1 else f"{file}: {heard.text}"))


def _say_failures(args: argparse.Namespace, turns: deque[Turn]) -> int:
    """Lines of the files in front that can't be read; how many."""
    from omni.errors import printable

    failed = 0
    while turns and turns[0].error:
        file, error = turns.popleft()
        failed += 1
        if args.json:
            print(json.dumps({"file": file, "error": error}, ensure_ascii=False))
        print(printable(f"error: {error}"), file=sys.stderr)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, command, argv)


if __name__ == "__main__":
    sys.exit(main())
