"""Where a nanochat checkpoint lies: a name the user gives, turned into three files.

A name is a file, a folder of any of nanochat's layouts, a tag (`d12`, `sft:d20`), a hub id, `auto`
or `demo`. Knows nanochat's folders and file names; must not know what the files hold.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni.errors import OmniError
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
_MODEL_FILE = re.compile(r"model_(\d+)\.pt$")
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
        name: a `model_*.pt`, a folder (a checkpoint's, one that holds checkpoints, or a whole
            `$NANOCHAT_BASE_DIR`), a tag (`d12`), a kind and a tag (`sft:d20`), a hub id
            (`owner/name`), `auto` (the RL, else SFT, else base checkpoint of the largest depth,
            newest step; the demo LM if there is none), or `demo`.

    Raises:
        OmniError: nothing of that name, or a part of it is missing.
    """
    text = str(name)
    path = Path(text).expanduser()
    if text == "demo":
        return _in_folder(DEMO, "demo LM of this project")
    if text == "auto":
        return _auto()
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
    return Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()


def kind_from_meta(meta: dict[str, Any]) -> str:
    """The kind of a checkpoint whose folder doesn't tell it, from what each stage of nanochat
    writes into its meta: base training alone its depth or loop state, RL nothing but the sizes.
    """
    if meta.get("kind") in FOLDERS:
        return str(meta["kind"])
    user_config = meta.get("user_config") or {}
    if "depth" in user_config or "loop_state" in meta or "dataloader_state_dict" in meta:
        return "base"
    if set(meta) <= {"model_config", "step"}:
        return "rl"
    return "sft"


def _auto() -> CheckpointFiles:
    found = _best_in(base_dir(), tuple(FOLDERS))
    if found is not None:
        return _files(found, "auto")
    print(f"no nanochat checkpoint in {base_dir()}: the demo LM is used", file=sys.stderr)
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
        best = _best_in(place, tuple(FOLDERS)) or _largest(place)
        if best is not None:
            return _files(best, source)
    raise OmniError(
        "no model_*.pt in the folder",
        where=str(folder),
        mend="give the folder that nanochat wrote, such as chatsft_checkpoints/d20",
    )


def _best_in(root: Path, kinds: tuple[str, ...]) -> Path | None:
    """The newest model of the largest depth of the first kind that has one."""
    for kind in kinds:
        best = _largest(root / FOLDERS[kind])
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
    """The `model_<step>.pt` of the highest step in `folder`."""
    models = [
        (m.group(1), p) for p in folder.glob("model_*.pt") if (m := _MODEL_FILE.match(p.name))
    ]
    return max(models, key=lambda pair: int(pair[0]))[1] if models else None


def _files(model: Path, source: str) -> CheckpointFiles:
    """Meta and tokenizer that belong to a model file."""
    folder = model.parent
    meta = folder / f"{model.stem.replace('model', 'meta', 1)}.json"
    if not meta.is_file():
        raise OmniError(
            f"no {meta.name} beside the model: its sizes and step are unknown",
            where=str(model),
            mend="copy the meta_*.json that nanochat wrote with it",
        )
    # Side by side on hubs; nanochat itself keeps one tokenizer two folders above a checkpoint.
    above = (folder, folder.parent, folder.parent.parent)
    places = [place / sub / TOKENIZER_FILE for place in above for sub in ("", "tokenizer")]
    tokenizers = [file for file in places if file.is_file()]
    if not tokenizers:
        raise OmniError(
            f"no {TOKENIZER_FILE} for the model",
            where=str(model),
            mend=f"copy nanochat's tokenizer/{TOKENIZER_FILE} beside it",
        )
    kinds = {name: kind for kind, name in FOLDERS.items()}
    kind = kinds.get(folder.parent.name) or kinds.get(folder.name, "")
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
            failure = f"{source} ({type(error).__name__}: {str(error).strip()[:100]})"
            tried.append(" ".join(failure.split()))
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
    """Downloads the newest step alone, with its meta and tokenizer; returns its folder."""
    from huggingface_hub import HfApi, hf_hub_download

    siblings = HfApi().model_info(name, timeout=HUB_TIMEOUT_SECONDS).siblings or []
    wanted = choose_files([sibling.rfilename for sibling in siblings])
    paths = [hf_hub_download(name, f, etag_timeout=HUB_TIMEOUT_SECONDS) for f in wanted]
    return Path(paths[0]).parent


def _modelscope(name: str) -> Path:
    """Downloads every checkpoint of the repository: ModelScope has no stable way to list one."""
    from modelscope import snapshot_download

    wanted = ["*model_*.pt", "*meta_*.json", f"*{TOKENIZER_FILE}"]
    return Path(snapshot_download(name, allow_patterns=wanted))


def choose_files(names: list[str]) -> list[str]:
    """Of a hub repository's files: the newest model, its meta, and every tokenizer.

    Raises:
        OmniError: the repository holds no nanochat checkpoint.
    """
    models = [(int(m.group(1)), f) for f in names if (m := _MODEL_FILE.search(f))]
    if not models:
        raise OmniError("the repository holds no model_*.pt", where=json.dumps(names)[:200])
    model = max(models)[1]
    meta = re.sub(r"model_(\d+)\.pt$", r"meta_\1.json", model)
    return [model, *(f for f in names if f == meta or Path(f).name == TOKENIZER_FILE)]
