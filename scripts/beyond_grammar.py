"""The experiment beyond the demo's grammar: open vocabulary, an unheard voice, a real human.

    python scripts/beyond_grammar.py --work work --hours 3.5
    python scripts/beyond_grammar.py --work work --hours 3.5 --run conv -- --projector conv

Makes the corpus (make_open_corpus.py), extracts it and the five LibriVox clips of Debian's
`pocketsphinx-testdata`, trains a projector on the embedded demo LM, and evaluates it on sentences
that were never trained on (dev-open), a voice never heard (test-open-voice), and the human clips
(test-human). What follows -- goes to omni-train-projector. Every step is skipped or resumed where
it was done, so the command may be killed and repeated.

The LM has read the sentences' books, as any LM has read much of what is said to it; the clips'
novel, Sense and Sensibility, it has not.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HUMAN = Path("/usr/share/pocketsphinx/test/data/librivox")
SCRIPTS = Path(__file__).resolve().parent
COMMANDS = Path(sys.executable).parent


def main() -> int:
    """Every step in turn; returns the exit status of the first that fails."""
    parser = argparse.ArgumentParser(
        description="Train and evaluate a projector on open-vocabulary speech.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--hours", type=float, default=3.5, help="of training speech, about")
    parser.add_argument("--run", default="open", help="name of the run")
    parser.add_argument("--window", default="fit", choices=["30", "fit"],
        help="of the encoder; fit takes a fifth of the time on such short clips")  # fmt: skip
    parser.add_argument("train", nargs="*", help="after --: options of omni-train-projector")
    args = parser.parse_args()
    if not (HUMAN / "transcription").is_file():
        parser.error(f"no {HUMAN}: apt-get install pocketsphinx-testdata")
    table = write_human_table(args.work)

    corpus, shards, runs = args.work / "corpus", args.work / "shards", args.work / "runs"
    for command in (
        [sys.executable, SCRIPTS / "make_open_corpus.py", "--out", corpus, "--hours", args.hours],
        *(
            extract(args.work, args.window, "--root", corpus, "--split", split)
            for split in ("train-open", "dev-open", "test-open-voice")
        ),
        extract(
            args.work, args.window, "--audio-dir", HUMAN, "--transcripts", table,
            "--split", "test-human",
        ),
        [
            COMMANDS / "omni-train-projector", "--shards", shards, "--lm", "demo", "--runs", runs,
            "--run", args.run, "--resume", *args.train,
        ],
        [COMMANDS / "omni-eval", runs / args.run, "--json", runs / args.run / "figures.json"],
    ):  # fmt: skip
        print("$", *command, flush=True)
        status = subprocess.run([str(part) for part in command], check=False).returncode
        if status:
            return status
    return 0


def extract(work: Path, window: str, *source: object) -> list[object]:
    """The command that extracts one split into `work`/shards."""
    places = ["--out", work / "shards", "--manifests", work / "manifests"]
    return [COMMANDS / "omni-extract", *source, *places, "--window", window]


def write_human_table(work: Path) -> Path:
    """The human clips' transcripts as a table for --transcripts; returns its path."""
    work.mkdir(parents=True, exist_ok=True)
    rows = ["audio\ttext\tspeaker"]
    for line in (HUMAN / "transcription").read_text().splitlines():
        words, _, name = line.partition("(")
        text = words.replace("<s>", "").replace("</s>", "").strip()
        rows.append(f"{name.rstrip(')')}.wav\t{text}\thuman")
    path = work / "human.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
