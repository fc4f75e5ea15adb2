"""LibriSpeech from OpenSLR: a download that goes on where it broke, and a safe unpacking.

The archive grows as `SPLIT.tar.gz.part`; only with the published md5 it becomes `SPLIT.tar.gz`. It is
unpacked beside its place and renamed into it, so a split's folder is there whole or not at all. Must
not know what is done with the audio.
"""

import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from extract.corpora.librispeech import PUBLISHED, canonical_split
from omni.errors import OmniError
from omni.formats.stores import Pace, TooSlowError

MIRRORS = (
    "https://www.openslr.org/resources",
    "https://us.openslr.org/resources",
    "https://openslr.elda.org/resources",
    "https://openslr.magicdatatech.com/resources",
)
TIMEOUT_SECONDS = 20
TRIES_A_MIRROR = 5  # connections in a row that bring nothing new
_BLOCK = 1 << 20


def fetch_split(
    split: str, root: Path, mirrors: Sequence[str] = MIRRORS, pause_seconds: float = 1.0
) -> Path:
    """The folder `root/LibriSpeech/SPLIT`, downloaded and unpacked if it is not there.

    Args:
        split: a LibriSpeech or mini-LibriSpeech split in any spelling.
        root: where archive and tree are kept; an archive there already is used.
        mirrors: URLs below which `RESOURCE/SPLIT.tar.gz` is, in order of preference.
        pause_seconds: before a connection is tried again.

    Returns:
        `root`, as `librispeech_manifest` wants it.

    Raises:
        OmniError: no such split; no mirror delivers the file with the published md5; an archive
            with a path that leads out of its folder.
    """
    split = canonical_split(split)
    if split not in PUBLISHED:
        raise OmniError(
            "OpenSLR has no such split", f"--split {split}", f"one of {', '.join(PUBLISHED)}"
        )
    if (root / "LibriSpeech" / split).is_dir():
        return root
    archive = root / f"{split}.tar.gz"
    if not archive.is_file():
        root.mkdir(parents=True, exist_ok=True)
        download(
            f"{PUBLISHED[split].resource}/{archive.name}",
            archive,
            PUBLISHED[split].md5,
            mirrors,
            pause_seconds,
        )
    unpack(archive, root, split)
    return root


def download(
    name: str, path: Path, md5: str, mirrors: Sequence[str] = MIRRORS, pause_seconds: float = 1.0
) -> None:
    """Bring `MIRROR/name` to `path`.

    Raises:
        OmniError: every mirror failed; the message lists how.
    """
    part = path.with_name(path.name + ".part")
    failures = []
    for mirror in mirrors:
        try:
            _download_from(f"{mirror}/{name}", part, pause_seconds)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{mirror}: {error or type(error).__name__}")
            continue
        found = _md5(part)
        if found == md5:
            part.replace(path)
            return
        # Wrong bytes can't be continued: the next mirror starts from nothing.
        part.unlink()
        failures.append(f"{mirror}: md5 {found}, published is {md5}")
    raise OmniError(
        f"download failed; {'; '.join(failures)}", name, "run the command again: it goes on"
    )


def unpack(archive: Path, root: Path, split: str) -> None:
    """Unpack `LibriSpeech/SPLIT` of the archive into `root`.

    Raises:
        OmniError: a member that would land elsewhere, a damaged archive, no such split in it.
    """
    staging = root / f".{split}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    print(f"unpacking {archive}")
    try:
        with tarfile.open(archive, "r|*") as tar:
            tar.extractall(staging, filter="data")  # refuses paths with .., links out, devices
    except tarfile.FilterError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise OmniError(
            "the archive wants to write outside its folder", str(archive), str(error)
        ) from error
    except (tarfile.TarError, EOFError, OSError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise OmniError(
            "the archive can't be unpacked", str(archive), f"{error}; remove it, run again"
        ) from error
    tree = staging / "LibriSpeech"
    if not (tree / split).is_dir():
        shutil.rmtree(staging, ignore_errors=True)
        raise OmniError(f"the archive holds no LibriSpeech/{split}", str(archive))
    base = root / "LibriSpeech"
    base.mkdir(exist_ok=True)
    for file in tree.iterdir():  # SPEAKERS.TXT and its like, the same in every archive
        if file.is_file() and not (base / file.name).exists():
            file.replace(base / file.name)
    (tree / split).replace(base / split)
    shutil.rmtree(staging, ignore_errors=True)


def _download_from(url: str, part: Path, pause_seconds: float) -> None:
    """One mirror, until the file is complete, nothing new has come TRIES_A_MIRROR times, or too little."""
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue_download(url, part, before)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing beyond what is there: the md5 will tell
                return
            if error.code < 500:
                raise
            problem: Exception = error
        except TooSlowError:  # it brings something each time, and would go on for days
            raise
        except (OSError, http.client.HTTPException) as error:
            problem = error
        after = part.stat().st_size if part.exists() else 0
        tries = 0 if after > before else tries + 1
        if tries == TRIES_A_MIRROR:
            raise problem
        time.sleep(pause_seconds)


def _continue_download(url: str, part: Path, start: int) -> None:
    """One connection: append from `start` if the server can, else begin anew.

    Raises:
        OSError, HTTPException: the connection failed, or ended before the promised length.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        continues = response.status == 206
        if continues and not response.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        ):
            raise OSError(f"{url} answers another range than was asked for")
        length = (
            int(response.headers["Content-Length"])
            if "Content-Length" in response.headers
            else None
        )
        first = start if continues else 0
        with (
            part.open("ab" if continues else "wb") as file,
            tqdm(
                total=None if length is None else first + length,
                initial=first,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                disable=None,
            ) as bar,
        ):
            received, pace, began = 0, Pace(), time.monotonic()
            while block := response.read1(_BLOCK):  # what is there: a whole block may never be
                pace.took(time.monotonic() - began, len(block))
                file.write(block)
                received += len(block)
                bar.update(len(block))
                began = time.monotonic()
        if length is not None and received < length:
            raise OSError(f"connection lost after {received} of {length} bytes")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
