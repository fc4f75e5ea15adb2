"""Where a nanochat checkpoint lies: a name the user gives, turned into three files.

A name is a file, a folder of any of nanochat's layouts, a tag (`d12`, `sft:d20`), a hub id, `auto`
or `demo`. Knows nanochat's folders and file names; must not know what the files hold.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from omni.errors import OmniError, brief
from omni.formats.tensors import INDEX_SUFFIX
from omni.nanochat.tokenizer import FILE_NAME as TOKENIZER_FILE

DEMO = Path(__file__).parent / "demo"
HUB_TIMEOUT_SECONDS = 5

# Kinds of checkpoints in the order in which `auto` and a bare tag prefer them. `mid` was a stage
# between base and SFT until January 2026.
FOLDERS = {
    "rl": "chatrl_checkpoints",
    "sft": "chatsft_checkpoints",
    "mid": "mid_checkpoints",
    "base": "base_checkpoints",
}
# What people's own folders and repositories call the same, beside nanochat's names.
_FOLDER_KINDS = {name: kind for kind, name in FOLDERS.items()} | {
    name: kind for kind in FOLDERS for name in (kind, f"chat{kind}", f"{kind}_checkpoints")
}
_MODEL_FILE = re.compile(r"model_(\d{1,18})\.(?:pt|safetensors)")
# Without a step in their name, in this order; an index stands for its shards.
_UNNUMBERED = (
    "model.pt",
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
_METAS = ("meta.json", "config.json")  # of an unnumbered model that has no meta_<step>.json
_TAG = re.compile(r"d(\d+)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint.

    `kind` is "base", "mid", "sft" or "rl" where the folder tells it, else "" (the meta tells).
    `source` says in words where it was found.
    """

    model: Path
    meta: Path
    tokenizer: Path
    kind: str
    source: str


def find_checkpoint(name: str | Path) -> CheckpointFiles:
    """The files that `name` stands for.

    Args:
        name: a `model_*.pt` (or safetensors), a folder (a checkpoint's, one that holds checkpoints,
            or a whole `$NANOCHAT_BASE_DIR`), a tag (`d12`), a kind and a tag (`sft:d20`), a hub id
            (`owner/name`), `auto` (the RL, else SFT, else base checkpoint of the largest depth,
            newest step; the demo LM if there is none), or `demo`.

    Raises:
        OmniError: nothing of that name, a part of it is missing, or it may not be read.
    """
    text = str(name)
    if text == "demo":
        return _in_folder(DEMO, "demo LM of this project")
    if text == "auto":
        return _auto()
    try:
        return _by_name(text)
    except OSError as error:
        raise OmniError(
            f"can't look for the checkpoint ({error.strerror or error})", error.filename or text
        ) from error


def _by_name(text: str) -> CheckpointFiles:
    path = _home(text)
    if path.is_file():
        return _files(path, "file")
    if path.is_dir():
        return _in_folder(path, "folder")
    kind, _, tag = text.rpartition(":")
    if re.fullmatch(r"[\w.-]+", tag) and kind in ("", *FOLDERS):
        return _by_tag(kind, tag)
    if _HUB_ID.fullmatch(text) and not text.endswith((".pt", ".json", ".pkl")):
        return _from_hubs(text)
    raise OmniError(
        "no such nanochat checkpoint",
        where=text,
        mend="give a folder, a model_*.pt, a tag such as d12 or sft:d20, a hub id, auto or demo",
    )


def base_dir() -> Path:
    """nanochat's own folder: `$NANOCHAT_BASE_DIR`, or `~/.cache/nanochat`."""
    return _home(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat")


def _home(text: str) -> Path:
    """`~` replaced where there is a home; left as it is where nobody knows one (a container's user)."""
    return Path(os.path.expanduser(text))


def kind_from_meta(meta: Mapping[str, Any]) -> str:
    """The kind of a checkpoint whose folder doesn't tell it, from what each stage of nanochat
    writes into its meta: base training alone its depth or loop state, RL nothing but the sizes.
    """
    if isinstance(meta.get("kind"), str) and meta["kind"] in FOLDERS:
        return str(meta["kind"])
    user_config = meta.get("user_config") or {}
    if "depth" in user_config or "loop_state" in meta or "dataloader_state_dict" in meta:
        return "base"
    if set(meta) <= {"model_config", "step"}:
        return "rl"
    return "sft"


def _auto() -> CheckpointFiles:
    try:
        found = _best_in(base_dir())
        if found is not None:
            return _files(found, "auto")
        why = f"no nanochat checkpoint in {base_dir()}"
    except OSError as error:  # somebody else's HOME, say
        why = f"can't look for a nanochat checkpoint in {base_dir()} ({error.strerror or error})"
    print(f"{why}: the demo LM is used", file=sys.stderr)
    return _in_folder(DEMO, "demo LM of this project")


def _by_tag(kind: str, tag: str) -> CheckpointFiles:
    kinds = (kind,) if kind else tuple(FOLDERS)
    for candidate in kinds:
        folder = base_dir() / FOLDERS[candidate] / tag
        step = _newest_step(folder) if folder.is_dir() else None
        if step is not None:
            return _files(step, f"{candidate}:{tag}")
    there = [f"{k}:{f.name}" for k in FOLDERS for f in sorted((base_dir() / FOLDERS[k]).glob("*/"))]
    raise OmniError(
        f"no checkpoint {f'{kind}:{tag}' if kind else tag}; there are {', '.join(there) or 'none'}",
        where=str(base_dir()),
        mend="set NANOCHAT_BASE_DIR, or give the checkpoint's folder",
    )


def _in_folder(folder: Path, source: str) -> CheckpointFiles:
    """The model in a checkpoint's folder, a folder of those, a base dir, or one folder above."""
    step = _newest_step(folder)
    if step is not None:
        return _files(step, source)
    for place in (folder, *sorted(folder.glob("*/"))):
        best = _best_in(place) or _largest(place)
        if best is not None:
            return _files(best, source)
    names = sorted(path.name for path in folder.iterdir())
    raise OmniError(
        f"no model_*.pt in the folder; found {', '.join(names[:8])[:300] or 'nothing'}",
        where=str(folder),
        mend="give the folder that nanochat wrote, such as chatsft_checkpoints/d20: model_<step>.pt "
        f"(or .safetensors), meta_<step>.json and {TOKENIZER_FILE}",
    )


def _best_in(root: Path) -> Path | None:
    """The newest model of the largest depth of the first kind that has one."""
    for kind in FOLDERS:
        for name in [name for name, its in _FOLDER_KINDS.items() if its == kind]:
            best = _largest(root / name) or _newest_step(root / name)
            if best is not None:
                return best
    return None


def _largest(folder: Path) -> Path | None:
    """The newest step of the largest `d<depth>` below `folder`; free tags come after, by time."""

    def rank(place: Path) -> tuple[int, float, str]:
        depth = _TAG.match(place.name)
        return int(depth.group(1)) if depth else -1, place.stat().st_mtime, place.name

    tags = [place for place in folder.glob("*/") if _newest_step(place) is not None]
    return _newest_step(max(tags, key=rank)) if tags else None


def _newest_step(folder: Path) -> Path | None:
    """The `model_<step>` of the highest step in `folder`, else a model without a step."""
    numbered = [
        (int(m.group(1)), p.suffix == ".pt", p)
        for p in folder.glob("model_*")
        if (m := _MODEL_FILE.fullmatch(p.name))
    ]
    if numbered:
        return max(numbered)[2]
    return next((folder / name for name in _UNNUMBERED if (folder / name).is_file()), None)


def _files(model: Path, source: str) -> CheckpointFiles:
    """Meta and tokenizer that belong to a model file."""
    folder = model.parent
    numbered = _MODEL_FILE.fullmatch(model.name)
    names = [f"meta_{numbered.group(1)}.json"] if numbered else []
    if not names:
        newest = sorted(folder.glob("meta_*.json"), key=lambda p: (len(p.name), p.name))
        names = [*(p.name for p in newest[-1:]), *_METAS]
    meta = next((folder / name for name in names if (folder / name).is_file()), None)
    if meta is None:
        raise OmniError(
            f"no {names[0]} beside the model: its sizes and step are unknown",
            where=str(model),
            mend="copy the meta_*.json that nanochat wrote with it",
        )
    # Side by side on hubs; nanochat itself keeps one tokenizer two folders above a checkpoint.
    above = (folder, *folder.parents[:3])  # three: repositories add a folder of their own
    places = [place / sub / TOKENIZER_FILE for place in above for sub in ("", "tokenizer")]
    tokenizers = [file for file in places if file.is_file()]
    if not tokenizers:
        other = (
            " (a tokenizer.json is no such file)" if (folder / "tokenizer.json").exists() else ""
        )
        raise OmniError(
            f"no {TOKENIZER_FILE} for the model{other}",
            where=str(model),
            mend=f"copy nanochat's tokenizer/{TOKENIZER_FILE} beside it",
        )
    kind = _FOLDER_KINDS.get(folder.parent.name) or _FOLDER_KINDS.get(folder.name, "")
    return CheckpointFiles(model, meta, tokenizers[0], kind, source)


def _from_hubs(name: str) -> CheckpointFiles:
    """ModelScope if NANOCHAT_MS_ID is set, the Hugging Face cache, the Hugging Face hub."""
    tried: list[str] = []
    endpoint = os.environ.get("HF_ENDPOINT", "Hugging Face hub")
    sources: list[tuple[str, str, Callable[[str], Path]]] = [
        ("Hugging Face cache", name, _hf_cache),
        (endpoint, name, _hf_hub),
    ]
    if os.environ.get("NANOCHAT_MS_ID"):
        sources.insert(0, ("ModelScope", os.environ["NANOCHAT_MS_ID"], _modelscope))
    for source, repository, fetch in sources:
        try:
            return _in_folder(fetch(repository), f"{source}, {repository}")
        except Exception as error:  # whatever it raises, the next source is asked and the user told
            tried.append(f"{source} ({brief(error)})")
            if source == "ModelScope":
                print(f"LM: {tried[-1]}, going on", file=sys.stderr)
    raise OmniError(
        f"no folder and no source has the checkpoint; tried {'; '.join(tried)}",
        where=name,
        mend="give a folder, a tag such as d12, auto or demo",
    )


def _hf_cache(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, local_files_only=True))


def _hf_hub(name: str) -> Path:
    """Downloads one model alone, with its meta and tokenizer; returns its folder."""
    from huggingface_hub import HfApi, hf_hub_download

    siblings = HfApi().model_info(name, timeout=HUB_TIMEOUT_SECONDS).siblings or []
    wanted = choose_files([sibling.rfilename for sibling in siblings])
    paths = [hf_hub_download(name, f, etag_timeout=HUB_TIMEOUT_SECONDS) for f in wanted]
    return Path(paths[0]).parent


def _modelscope(name: str) -> Path:
    """Downloads every checkpoint of the repository: ModelScope has no stable way to list one."""
    from modelscope import snapshot_download

    wanted = ["*model_*.pt", "*model*.safetensors", "*pytorch_model*.bin", "*.index.json"]
    wanted += ["*meta*.json", "*config.json", f"*{TOKENIZER_FILE}"]
    return Path(snapshot_download(name, allow_patterns=wanted))


def choose_files(names: list[str]) -> list[str]:
    """Of a hub repository's files: the model that a local folder of them would yield, its meta and
    its tokenizer.

    Raises:
        OmniError: the repository holds no nanochat checkpoint.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or len(path.parts) > 5:
                continue
            if path.suffix in (".pt", ".safetensors", ".bin", ".json", ".pkl"):
                file = root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        for place in root.rglob("*/"):
            os.utime(place, (0, 0))  # a listing has no times
        try:
            files = _in_folder(root, "listing")
        except OmniError as error:
            if error.where != scratch:
                raise OmniError(error.what, error.where.removeprefix(scratch), error.mend) from None
            raise OmniError(
                "the repository holds no model_*.pt", json.dumps(names)[:200], error.mend
            ) from None
        chosen = [files.model, files.meta, files.tokenizer]
        if files.model.name.endswith(INDEX_SUFFIX):
            suffix = Path(files.model.name.removesuffix(INDEX_SUFFIX)).suffix
            chosen += sorted(files.model.parent.glob(f"*{suffix}"))
        return [file.relative_to(root).as_posix() for file in chosen]
