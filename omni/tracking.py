"""Where figures go besides the disk: wandb, its project, whether it is online, and a run's page there.

What is tracked is on the disk already, so nothing that wandb does may stop a run. Must not know what
is tracked.
"""

import contextlib
import hashlib
import os
import sys
import time
import urllib.parse
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any

from omni.errors import OmniError, one_line
from omni.formats.files import write_whole

WANDB_PROJECT = "nanochat-omni-audio"
WANDB_MODES = ("auto", "online", "offline", "disabled")
OLD_MODES = {"run": "online", "dryrun": "offline"}  # WANDB_MODE's older words, which wandb takes
START_SECONDS = 30  # for the host to answer; after that the run is kept offline
FINISH_SECONDS = 60  # for what was not sent yet; it stays on the disk
ID_FILE = Path("wandb") / "id"


def wandb_mode(asked: str) -> str:
    """The mode to use: with "auto", WANDB_MODE if set, else online with a key, else offline.

    Raises:
        OmniError: no such mode; "online" without a key: wandb would stop and ask for one.
    """
    where = f"--wandb {asked}"
    if asked == "auto":
        asked = os.environ.get("WANDB_MODE", "").strip().lower()
        where = f"WANDB_MODE={asked}"
        asked = OLD_MODES.get(asked, asked)
    has_key, why_not = _find_key()
    if not asked:
        if why_not:
            print(f"wandb is offline: {why_not}", file=sys.stderr)
        return "online" if has_key else "offline"
    if asked not in WANDB_MODES[1:]:
        choose = f"choose one of {', '.join(WANDB_MODES[1:])}"
        raise OmniError(f"no wandb mode {asked!r}", where, choose)
    if asked == "online" and not has_key:
        why_not = f"wandb has no key; {why_not}" if why_not else "wandb has no key"
        raise OmniError(why_not, where, "run `wandb login`, or use --wandb offline")
    return asked


class WandbPage:
    """A run's page. What wandb can't do is told in one line, once; the run goes on without it."""

    def __init__(self, page: Any) -> None:
        self._page: Any = page

    def log(self, figures: Mapping[str, Any], step: int | None = None) -> None:
        """Add figures, pictures, tables."""
        with self._or_give_up():
            if self._page is not None:
                self._page.log(dict(figures), step=step)

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Set figures of the whole run."""
        with self._or_give_up():
            if self._page is not None:
                self._page.summary.update(dict(figures))

    def finish(self) -> None:
        """Send what is left, or leave it on the disk."""
        with self._or_give_up():
            if self._page is not None:
                self._page.finish()

    @contextlib.contextmanager
    def _or_give_up(self) -> Any:
        try:
            yield
        except Exception as error:  # of wandb, its service or the network: whatever it raises
            self._page = None
            print(f"wandb stopped ({_fold(error)}): going on without it", file=sys.stderr)


def start_wandb(path: Path, config: Mapping[str, Any], asked: str) -> WandbPage | None:
    """The page of the run in folder `path`, or None when disabled. If it can't be had online, a
    line says so and it is kept offline, in the run's folder.

    Raises:
        OmniError: wandb does not start, offline neither.
    """
    mode = wandb_mode(asked)
    if mode == "disabled":
        return None
    for key in [k for k, value in os.environ.items() if k.startswith("WANDB_") and not value]:
        del os.environ[key]  # set to nothing means not set; wandb would refuse it
    if mode == "online":
        try:
            return WandbPage(_init(path, config, mode))
        except Exception as error:  # no network, a key that is wrong, a host that does not answer
            print(
                f"wandb is kept offline, `wandb sync` sends it later ({_fold(error)})",
                file=sys.stderr,
            )
            _forget()
    try:
        return WandbPage(_init(path, config, "offline"))
    except Exception as error:
        raise OmniError(
            f"wandb did not start ({_fold(error)})", str(path), "use --wandb disabled"
        ) from error


def _init(path: Path, config: Mapping[str, Any], mode: str) -> Any:
    os.environ["WANDB_MODE"] = mode  # its settings read it, whatever `mode` says
    import wandb  # seconds: only if it is used

    settings = wandb.Settings(
        silent=True, console="off", x_disable_stats=True, init_timeout=START_SECONDS
    )
    if "finish_timeout" in type(settings).model_fields:  # newer than the oldest version we take
        settings.finish_timeout = FINISH_SECONDS
    return wandb.init(
        project=WANDB_PROJECT,
        name=path.name,
        id=page_id(path),
        resume="allow" if mode == "online" else None,
        dir=str(path),
        config=dict(config),
        mode=mode,  # type: ignore[arg-type]
        settings=settings,
    )


def _forget() -> None:
    """End wandb's service, which still holds the settings of an attempt that failed."""
    import wandb

    with contextlib.suppress(Exception):  # it may not even have started
        wandb.teardown()


def page_id(path: Path) -> str:
    """The id of a run's page, made when it is first asked for and kept in the run's folder: two
    runs of one name are two pages, a run that is resumed or copied keeps its own."""
    file = path / ID_FILE
    with contextlib.suppress(OSError, UnicodeDecodeError):
        kept = file.read_text(encoding="ascii").strip()
        if kept.isalnum():
            return kept
    made = hashlib.sha256(f"{path.resolve()} {time.time_ns()}".encode()).hexdigest()[:12]
    write_whole(file, f"{made}\n".encode())
    return made


def _find_key() -> tuple[bool, str]:
    """Whether wandb has a key for its host; if it may have one that can't be read, why."""
    if os.environ.get("WANDB_API_KEY", "").strip():
        return True, ""
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    file = os.environ.get("NETRC") or None
    try:
        return netrc(file).authenticators(host.hostname or "") is not None, ""
    except (FileNotFoundError, NotADirectoryError):
        return False, ""
    except (OSError, NetrcParseError, UnicodeDecodeError) as error:
        return False, f"{file or '~/.netrc'} can't be used ({_fold(error)})"


def _fold(error: Exception) -> str:
    """The error on one line; its kind where it says nothing."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(text) or type(error).__name__
