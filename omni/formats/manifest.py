"""The list of utterances of a split, as parquet: what extraction reads and nothing else decides.

`manifests/README.md` describes every column. Must not know how a corpus is laid out on disk.
"""

import io
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from omni.errors import OmniError
from omni.formats.files import write_whole

MANIFEST_SCHEMA = 1
ROLES = ("train", "eval", "smoke")
_EVAL_WORDS = {
    *("dev", "devel", "development", "test", "testing", "tst", "val", "valid", "validation"),
    *("eval", "evaluation", "heldout", "holdout", "unseen"),
}  # fmt: skip
_TRAIN_WORDS = {"train", "training", "trn"}
_EVAL_PARTS = ("dev", "test", "tst", "val", "heldout", "holdout", "unseen")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # between the words of TestClean


@dataclass(frozen=True)
class Utterance:
    """One row. `problem` is why it can't be extracted, found without decoding; empty if none."""

    id: str
    speaker: str = ""
    chapter: str = ""
    sex: str = ""  # "F", "M" or ""
    audio: str = ""  # path relative to the manifest's root, with forward slashes
    n_samples: int = 0  # as the header says, at `sample_rate`; 0 if it can't be read
    sample_rate: int = 0  # Hz
    text: str = ""  # as given
    text_norm: str = ""  # what is trained on: lower case, single spaces
    problem: str = ""

    @property
    def seconds(self) -> float:
        """Length that the header promises."""
        return self.n_samples / self.sample_rate if self.sample_rate else 0.0


@dataclass(frozen=True)
class Manifest:
    """A split: its utterances sorted by id, each id once."""

    split: str
    role: str  # "train", "eval" or "smoke"
    root: str  # folder that `audio` is relative to
    utterances: tuple[Utterance, ...]

    def audio_path(self, utterance: Utterance) -> Path:
        """Where the utterance's file is."""
        return Path(self.root) / utterance.audio


def make_manifest(
    split: str, root: Path, utterances: Iterable[Utterance], role: str | None = None
) -> Manifest:
    """Sort and check a corpus's rows.

    Raises:
        OmniError: no rows, or an id twice.
    """
    rows = tuple(sorted(utterances, key=lambda u: u.id))
    for one, two in itertools.pairwise(rows):
        if one.id == two.id:
            raise OmniError(f"utterance id {one.id} occurs twice", f"{one.audio} and {two.audio}")
    if not rows:
        raise OmniError("no utterances found", f"split {split} in {root}")
    return Manifest(split, role or role_of(split), str(root), rows)


def role_of(split: str) -> str:
    """What a split is for, told by the words of its name in any spelling.

    `cv-test`, `test_clean`, `Validation` and `held-out` evaluate; a name without such a word trains.
    One that has words of both (`train_dev`), or a word that only looks like one of evaluation
    (`validated`, `mytest`), is not guessed: no evaluation set is ever trained on by its name.

    Raises:
        OmniError: the name does not tell.
    """
    words = re.findall(r"[a-z]+", _CAMEL.sub(" ", split).lower())
    if words[:1] == ["smoke"]:
        return "smoke"
    evaluates, trains = _EVAL_WORDS & {*words}, _TRAIN_WORDS & {*words}
    if re.search(r"(held|hold)[^a-z]*(out|back)", split.lower()):
        evaluates |= {"heldout"}
    if evaluates and not trains:
        return "eval"
    looks_so = any(part in word for word in words for part in _EVAL_PARTS)
    if evaluates or looks_so:
        what = f"is split {split} for training or for evaluation? Its name does not tell"
        raise OmniError(what, "--role", "give --role train or --role eval")
    return "train"


def is_noise(split: str) -> bool:
    """Whether nothing is said in it, so that its empty transcripts are true. Elsewhere an empty
    transcript is one that is missing."""
    return split.startswith("noise")


def normalize_text(text: str) -> str:
    """Training text: lower case, single spaces (upper case costs a BPE three times the tokens)."""
    return " ".join(text.lower().split())


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = {
        "schema": MANIFEST_SCHEMA,
        "split": manifest.split,
        "role": manifest.role,
        "root": manifest.root,
    }
    columns = {
        field.name: pa.array(
            [getattr(u, field.name) for u in manifest.utterances],
            pa.int64() if field.type is int else pa.string(),
        )
        for field in fields(Utterance)
    }
    table = pa.table(columns).replace_schema_metadata({"nanochat-omni": json.dumps(header)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def read_manifest(path: Path) -> Manifest:
    """Read parquet written by `write_manifest`.

    Raises:
        OmniError: no such file, not one of ours, or of another schema version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        header = json.loads((table.schema.metadata or {}).get(b"nanochat-omni", b"null"))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise OmniError("the manifest can't be read", str(path), str(error)) from error
    if not isinstance(header, dict) or header.get("schema") != MANIFEST_SCHEMA:
        found = header.get("schema") if isinstance(header, dict) else "none"
        raise OmniError(
            f"manifest schema {found}, this version reads {MANIFEST_SCHEMA}",
            str(path),
            "make it anew with omni-extract --manifest-only",
        )
    names = [field.name for field in fields(Utterance)]
    missing = set(names) - set(table.column_names)
    if missing:
        raise OmniError(f"the manifest lacks columns {', '.join(sorted(missing))}", str(path))
    rows = (Utterance(**row) for row in table.select(names).to_pylist())
    return make_manifest(header["split"], Path(header["root"]), rows, header["role"])
