"""LibriSpeech from the Hugging Face hub: its FLACs written out as the tree that LibriSpeech is.

The plan draws utterances in random order, which parquet does not serve; so the rows are streamed
once, and what follows is the same as for any tree. HF_ENDPOINT is honoured. Must not know what is
done with the audio.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from extract.corpora.librispeech import PUBLISHED, canonical_split
from omni.errors import OmniError

HUB_ID = "openslr/librispeech_asr"
HUB_REVISION = "71cacbfb7e2354c4226d01e70d77d5fca3d04ba1"


def hub_names(split: str) -> tuple[str, str]:
    """The hub's (config, split) of a LibriSpeech split: `dev-clean` is (`clean`, `validation`)."""
    part, quality, *hours = split.split("-")
    if part == "train":
        return quality, f"train.{hours[0]}"
    return quality, "validation" if part == "dev" else part


def fetch_split(
    split: str, root: Path, repo: str = HUB_ID, revision: str | None = HUB_REVISION
) -> Path:
    """The folder `root/LibriSpeech/SPLIT`, streamed from the hub if it is not there.

    Args:
        split: a LibriSpeech split in any spelling.
        root: where the tree is kept.
        repo: dataset on the hub, or a local folder in its layout.
        revision: commit of the dataset; None: the newest.

    Returns:
        `root`, as `librispeech_manifest` wants it.

    Raises:
        OmniError: no such split, the hub does not answer, or a row without audio.
    """
    import datasets

    split = canonical_split(split)
    if split not in PUBLISHED or PUBLISHED[split].resource != 12:
        raise OmniError("the hub's LibriSpeech has no such split", f"--split {split}")
    final = root / "LibriSpeech" / split
    if final.is_dir():
        return root
    config, hub_split = hub_names(split)
    try:
        rows = datasets.load_dataset(
            repo, config, split=hub_split, revision=revision, streaming=True
        )
        rows = rows.cast_column("audio", datasets.Audio(decode=False))
        staging = root / f".{split}.streaming"
        write_tree(tqdm(rows, total=PUBLISHED[split].utterances, desc=split, disable=None), staging)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        message = f"{type(error).__name__}: {error}"
        raise OmniError(
            "the hub's dataset can't be read", repo, f"{message[:200]}; or use --source openslr"
        ) from error
    final.parent.mkdir(parents=True, exist_ok=True)
    staging.replace(final)
    return root


def write_tree(rows: Iterable[dict[str, Any]], folder: Path) -> None:
    """Rows {id, speaker_id, chapter_id, text, audio{bytes, path}} as SPEAKER/CHAPTER/ID.flac and texts.

    A FLAC that is there whole is not written again, so an interrupted run goes on.
    """
    texts: dict[Path, list[str]] = {}
    for row in rows:
        chapter = folder / str(row["speaker_id"]) / str(row["chapter_id"])
        utterance_id = os.path.basename(str(row["id"]))
        path, data = chapter / f"{utterance_id}.flac", row["audio"]["bytes"]
        if data is None:
            raise OmniError("a row has no audio bytes", utterance_id)
        if not path.is_file() or path.stat().st_size != len(data):
            chapter.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        name = f"{row['speaker_id']}-{row['chapter_id']}.trans.txt"
        line = f"{utterance_id} {row['text']}".replace("\n", " ")  # a line is an utterance
        texts.setdefault(chapter / name, []).append(line)
    for path, lines in texts.items():
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
