"""The list of utterances of a split, as parquet: what extraction reads and nothing else decides.

`manifests/README.md` describes every column. Must not know how a corpus is laid out on disk.
"""

import io
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from typing_extensions import TypedDict

from omni.errors import OmniError
from omni.formats.checked import parse_json
from omni.formats.files import safe_id, safe_name, write_whole
from omni.formats.records import Role

if TYPE_CHECKING:
    import pyarrow

MANIFEST_SCHEMA = 2
LABELS = ("pace", "pitch", "accent", "sound")  # columns that older manifests lack
_LONGEST_SECONDS = 30 * 24 * 3600.0  # a header that promises more than a month is a broken one
ROLES: tuple[Role, ...] = get_args(Role)
_EVAL_WORDS = {
    *("dev", "devel", "development", "test", "testing", "tst", "val", "valid", "validation"),
    *("eval", "evaluation", "heldout", "holdout", "unseen", "audiobench"),
}  # fmt: skip
_TRAIN_WORDS = {"train", "training", "trn"}
_EVAL_PARTS = ("dev", "test", "tst", "val", "heldout", "holdout", "unseen")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # between the words of TestClean


class Problem(StrEnum):
    """What is wrong with an utterance; the value is what manifests and failure records store."""

    NONE = ""
    NO_AUDIO = "no-audio"  # a transcript alone
    NO_TEXT = "no-text"  # audio alone
    UNREADABLE = "unreadable"  # by its header, or when it is decoded
    NOT_ENCODED = "not-encoded"  # the encoder fails on it, and on nothing else
    NOT_FINITE = "not-finite"  # its features are no numbers, or too large for their type
    NOT_STORED = "not-stored"  # its id or its text can't be written


@dataclass(frozen=True)
class Utterance:
    """One row. `problem` is why it can't be extracted, found without decoding; `note` says it in words."""

    id: str
    speaker: str = ""
    chapter: str = ""
    sex: str = ""  # "F", "M" or ""
    audio: str = ""  # path relative to the manifest's root, with forward slashes
    start: float = 0.0  # seconds in the file that the utterance begins at
    length: float = 0.0  # seconds that it lasts; 0: to the file's end
    n_samples: int = (
        0  # of the utterance, as the header says, at `sample_rate`; 0 if it can't be read
    )
    sample_rate: int = 0  # Hz
    text: str = ""  # as given
    text_norm: str = ""  # what is trained on: lower case, single spaces
    problem: Problem = Problem.NONE
    note: str = ""
    # How it is spoken, where the corpus says so; "" where not.
    pace: str = ""  # "slow", "normal" or "fast"
    pitch: str = ""  # "low", "normal" or "high", for the speaker's sex
    accent: str = ""  # "US", "GB"
    sound: str = ""  # heard behind the voice, or instead of one: "hum", "telephone", …

    @property
    def is_complete(self) -> bool:
        """Whether extraction tries it. A header that can't be read is no reason not to: decoding
        tells better."""
        return self.problem not in (Problem.NO_AUDIO, Problem.NO_TEXT)

    @property
    def seconds(self) -> float:
        """Length that the header promises; 0 where it promises nothing, or what nobody records."""
        seconds = self.n_samples / self.sample_rate if self.sample_rate > 0 else 0.0
        return seconds if 0 < seconds < _LONGEST_SECONDS else 0.0


@dataclass(frozen=True)
class Manifest:
    """A split: its utterances sorted by id, each id once.

    Raises:
        OmniError: a split's name or an id that would leave the folder it is written to.
    """

    split: str
    role: Role
    root: str  # folder that `audio` is relative to
    utterances: tuple[Utterance, ...]

    def __post_init__(self) -> None:
        safe_name(self.split, "a split")
        for utterance in self.utterances:
            safe_id(utterance.id)

    def audio_path(self, utterance: Utterance) -> Path:
        """Where the utterance's file is."""
        return Path(self.root) / utterance.audio


def make_manifest(
    split: str, root: Path, utterances: Iterable[Utterance], role: Role | None = None
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


def role_of(split: str) -> Role:
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


class _Header(TypedDict):
    schema: int
    split: str
    role: str
    root: str


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write parquet, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    header: _Header = {
        "schema": MANIFEST_SCHEMA,
        "split": manifest.split,
        "role": manifest.role,
        "root": manifest.root,
    }
    columns = {
        name: [getattr(u, name) for u in manifest.utterances] for name in _arrow_schema().names
    }
    table = pa.table(columns, _arrow_schema())
    table = table.replace_schema_metadata({"nanochat-omni": json.dumps(header)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def read_manifest(path: Path) -> Manifest:
    """Read parquet written by `write_manifest`.

    Raises:
        OmniError: no such file, not one of ours, of another schema version, or a column, a value or
            a name that no manifest has.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    mend = "make it anew with omni-extract --manifest-only"
    try:
        table = pq.read_table(path)
        text = (table.schema.metadata or {}).get(b"nanochat-omni")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise OmniError("the manifest can't be read", str(path), str(error)) from error
    if text is None:
        raise OmniError("no manifest: its parquet has no header of ours", str(path), mend)
    header = parse_json(text, _Header, f"{path}, header", mend)
    if header["schema"] != MANIFEST_SCHEMA:
        what = f"manifest schema {header['schema']}, this version reads {MANIFEST_SCHEMA}"
        raise OmniError(what, str(path), mend)
    if header["role"] not in ROLES or "\0" in header["root"]:
        raise OmniError("a role or a root that no manifest has", str(path), mend)
    schema = _arrow_schema()
    missing = set(schema.names) - set(table.column_names)
    for name in missing & set(LABELS):
        table = table.append_column(name, pa.array([""] * len(table), pa.string()))
    if missing := missing - set(LABELS):
        raise OmniError(f"the manifest lacks columns {', '.join(sorted(missing))}", str(path), mend)
    table = table.select(schema.names)
    for name in schema.names:
        column = table.column(name)
        if column.type != schema.field(name).type or column.null_count:
            kind = f"{column.type}, {column.null_count} empty; {schema.field(name).type} is wanted"
            raise OmniError(f"the manifest's column {name} is {kind}", str(path), mend)
    try:
        rows = [
            Utterance(**{**row, "problem": Problem(row["problem"])}) for row in table.to_pylist()
        ]
    except ValueError as error:  # a problem of no kind that we know, or bytes that are no UTF-8
        raise OmniError(f"the manifest has a foreign value ({error})", str(path), mend) from error
    return make_manifest(header["split"], Path(header["root"]), rows, header["role"])


def _arrow_schema() -> "pyarrow.Schema":
    import pyarrow as pa

    types = {int: pa.int64(), float: pa.float64()}
    columns = [(f.name, types.get(f.type, pa.string())) for f in fields(Utterance)]  # type: ignore[arg-type]
    return pa.schema(columns)
