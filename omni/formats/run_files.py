"""What the JSON files of a run folder hold, field by field, as types that a reader checks against.

A run may be somebody's: sizes have bounds here, so that nothing is allocated for an absurd one.
Keys without a name here are kept as they are. Must not know the model that is built from them.
"""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from omni.errors import OmniError
from omni.formats.checked import Schema, parse_json, read_json
from omni.formats.records import Count, FeatureConfig
from omni.formats.stores import read_bytes

SCHEMA: Literal[1] = 1
HELD_OUT_NAME = "held-out"  # what the figures of utterances that a run held out are called
TASKS = "tasks"  # in the place of a split's name
METRICS_BYTES = 1 << 30  # of metrics.jsonl: a line is some hundred bytes, a run some million steps

_OPEN = ConfigDict(extra="allow")  # a newer trainer may have written more than is read here

Size = Annotated[int, Field(ge=1, le=1 << 20)]
SizeOrNone = Annotated[int, Field(ge=0, le=1 << 20)]


class ProjectorConfig(TypedDict):
    """The arguments of `omni.bridge.projector.build_projector`."""

    name: str
    d_in: Size
    n_embd: Size
    n_ve: SizeOrNone
    kv_dim: SizeOrNone
    stack: Annotated[int, Field(ge=1, le=4096)]
    hidden: Size
    audio_ve: str
    n_layers_in: Annotated[int, Field(ge=1, le=1024)]


Kind = Literal["sft", "base"]  # of a row's layout


class TemplateConfig(TypedDict):
    """The fields of `omni.bridge.turns.Template`."""

    kind: Kind
    prompt: str
    audio_first: NotRequired[bool]


@with_config(_OPEN)
class TrainConfig(TypedDict):
    """Of the trainer's options those that somebody else reads; the others are kept unread."""

    shards: list[str]
    eval_shards: list[str]
    steps: Count
    shuffle_pairs: bool
    language: NotRequired[str]


class AdapterConfig(TypedDict):
    """Of the adapters (`omni.nanochat.lora.Lora`). everywhere: they were trained in rows of text too."""

    rank: Annotated[int, Field(ge=1, le=65_536)]
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: list[str]
    everywhere: bool


@with_config(_OPEN)
class RunConfig(TypedDict):
    """config.json. lm: where the LM lay. select: the split whose CE chose the best checkpoint, or
    `TASKS` where rows of the table did. lora: absent where there are no adapters."""

    schema: Literal[1]
    projector: ProjectorConfig
    template: TemplateConfig
    lm: str
    select: str
    train: TrainConfig
    lora: NotRequired[AdapterConfig]


class SplitUse(TypedDict):
    """A split that the run trained on or was judged by."""

    split: str
    role: str
    n: Count


class SplitContent(TypedDict):
    """One training split: utterances, and a hash over the sha256 of its tars in their order."""

    split: str
    n: int
    sha256: str


class TableUse(TypedDict):
    """A table of tasks: its path, the hash of its file, its rows."""

    path: str
    sha256: str
    rows: Count


class ParentUse(TypedDict):
    """The run that a run started from: its folder, and hashes of the files it took. lora: "" where it
    has no adapters."""

    path: str
    which: str
    projector: str
    lora: str


class Content(TypedDict):
    """Training splits in the order given; rows: a hash over which of their utterances train, and how
    often; tasks: sha256 of the table, where there is one."""

    splits: list[SplitContent]
    rows: str
    tasks: NotRequired[str]


@with_config(_OPEN)
class Provenance(TypedDict):
    """provenance.json. held_out: ids of training splits that evaluate; empty where a split does.
    content: of the training splits, which a resumed run must find again. lm_dtype: what the LM
    computes in, device: on which kind of device; lm_dtypes_before, devices_before: what it did before
    each resumption under `--allow-mixed`."""

    fingerprint: str
    fingerprint_config: FeatureConfig
    splits: list[SplitUse]
    held_out: NotRequired[list[str]]
    content: NotRequired[Content]
    longest_seconds: NotRequired[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    lm_hash: str
    lm_kind: str
    lm_dtype: str
    lm_dtypes_before: NotRequired[list[str]]
    device: NotRequired[str]
    devices_before: NotRequired[list[str]]
    tasks: NotRequired[TableUse]
    parent: NotRequired[ParentUse]
    seed: NotRequired[int]
    command: NotRequired[list[str]]
    versions: NotRequired[dict[str, str]]


@with_config(_OPEN)
class MetricsLine(TypedDict):
    """A line of metrics.jsonl: figures of a step, or of an evaluation by split."""

    step: Count
    loss: NotRequired[float]
    token_accuracy: NotRequired[float]
    eval: NotRequired[dict[str, dict[str, Any]]]


def read_run_files(folder: Path) -> tuple[RunConfig, Provenance]:
    """config.json and provenance.json.

    Raises:
        OmniError: no run there, one of another schema, or a field that is missing or unsound.
    """
    make = "make one with omni-train-projector"
    file = folder / "config.json"
    try:
        file.stat()
    except FileNotFoundError as error:
        raise OmniError("no training run", str(folder), make) from error
    except OSError as error:
        raise OmniError(f"can't read ({error.strerror or error})", str(file)) from error
    schema = read_json(file, Schema)["schema"]
    if schema != SCHEMA:
        raise OmniError(f"a run of schema {schema}, not {SCHEMA}", where=str(folder))
    mend = "copy the run again, or train anew"
    config = read_json(file, RunConfig, mend)
    return config, read_json(folder / "provenance.json", Provenance, mend)


def read_metrics(file: Path) -> list[tuple[str, MetricsLine]]:
    """The lines of metrics.jsonl, as written and as read; empty if there is no such file.

    A last line without its line break was cut short by a kill: it is left out unless it is whole.

    Raises:
        OmniError: any other line that is damaged, by its number.
    """
    if not os.path.lexists(file):
        return []
    # Bytes: a kill can cut a character in two, and Python splits lines where files don't.
    *lines, last = read_bytes(file, METRICS_BYTES).split(b"\n")
    read = []
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        parsed = parse_json(line, MetricsLine, where, "remove the line, or copy the run again")
        read.append((line.decode(), parsed))
    if last.strip():
        with contextlib.suppress(OmniError):
            parsed = parse_json(last, MetricsLine, str(file))  # no JSON if it is no UTF-8
            read.append((last.decode(), parsed))
    return read
