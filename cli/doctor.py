"""omni-doctor: what this machine has, what it lacks, and how to mend it."""

import argparse
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli import _types
from cli._common import explain, make_parser, run
from omni.encoder import DEFAULT_ENCODER
from omni.errors import OmniError

if TYPE_CHECKING:
    from omni.device.nvidia import Nvidia

PACKAGES = (
    "torch",
    "torchaudio",
    "transformers",
    "webdataset",
    "datasets",
    "pyarrow",
    "soundfile",
    "numpy",
)
OPTIONAL = {"ray": "ray", "modelscope": "modelscope"}
NETWORK_TIMEOUT_SECONDS = 2.0
ENOUGH_DISK_GB = 30  # features and audio of train-clean-100

DESCRIPTION = """\
Look at everything the other commands need. Exit status 1 if something must be mended.

  omni-doctor              the network too, two seconds a host at most
  omni-doctor --offline    only this machine
"""


@dataclass(frozen=True)
class Finding:
    """One line: `ok`, `note` (works, but know it) or `bad` (mend it)."""

    level: Literal["ok", "note", "bad"]
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:<4} {self.what}" + (f": {self.mend}" if self.mend else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    return run(build_parser, doctor, argv)


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = make_parser("omni-doctor", DESCRIPTION)
    parser.add_argument("--offline", action="store_true", help="don't ask any host")
    parser.add_argument(
        "--encoder", type=_types.some, default=DEFAULT_ENCODER, help="encoder to look for"
    )
    parser.add_argument(
        "--lm", type=_types.some, default="auto", help="LM to look for: path, name, auto or demo"
    )
    parser.add_argument(
        "--out", type=_types.path, default=Path("shards"), help="where shards would go"
    )
    return parser


def doctor(args: argparse.Namespace) -> int:
    """Print every finding; 1 if one is bad."""
    bad = 0
    for finding in findings(args):
        print(finding)
        bad += finding.level == "bad"
    return 1 if bad else 0


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    """All checks, cheapest first; what ends one of them is its finding, and the next is made."""
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("packages", check_versions),
        ("torchaudio", lambda: [check_torchaudio()]),
        ("device", check_device),
        ("codecs", check_codecs),
        ("disk", lambda: [check_disk(args.out)]),
        ("encoder", lambda: [check_encoder(args.encoder)]),
        ("LM", lambda: [check_lm(args.lm)]),
    ]
    if not args.offline:
        checks.append(("network", check_network))
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # no home, another's home, a library that is broken: told here
            yield Finding("bad", f"{name}: {explain(error).line.removeprefix('error: ')}")


def check_versions() -> Iterator[Finding]:
    """Python and the packages."""
    enough = sys.version_info >= (3, 11)
    yield Finding(
        "ok" if enough else "bad",
        f"Python {platform.python_version()}",
        "" if enough else "3.11 or newer is needed",
    )
    for name in PACKAGES:
        try:
            yield Finding("ok", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("bad", f"{name} is not installed", "make setup")
    for name, extra in OPTIONAL.items():
        try:
            yield Finding("ok", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "note", f"{name} is not installed", f"pip install -e .[{extra}] if you want it"
            )


def check_torchaudio() -> Finding:
    """torch and torchaudio must be built for one another."""
    from omni.audio import import_torchaudio

    try:
        import_torchaudio()
    except OmniError as error:
        return Finding("bad", f"{error.what} ({error.where})", error.mend)
    return Finding("ok", "torchaudio loads beside this torch")


def check_device() -> Iterator[Finding]:
    """A GPU that torch can use, one that it can't and what to install, or a CPU and what that means."""
    import torch

    from omni.device.nvidia import find_nvidia

    nvidia, built = find_nvidia(), torch.version.cuda
    if torch.cuda.is_available():
        driver = ".".join(map(str, nvidia.driver)) if nvidia.driver else "of unknown version"
        yield Finding("ok", f"torch is built with CUDA {built}, the driver is {driver}")
        for i in range(torch.cuda.device_count()):
            name, capability = torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)
            yield _check_kernels(f"cuda:{i}", name, capability, torch.cuda.get_arch_list())
    elif nvidia.devices:
        yield _check_idle_card(nvidia, built)
    else:
        threads = torch.get_num_threads()
        mend = "about a second of whisper-base a clip and core"
        yield Finding("note", f"no GPU, {threads} CPU threads", mend)


def _check_kernels(
    device: str, name: str, capability: tuple[int, int], built_for: list[str]
) -> Finding:
    from omni.device.nvidia import has_kernels

    kind = f"{device} is a {name}, compute capability {capability[0]}.{capability[1]}"
    if has_kernels(capability, built_for):
        return Finding("ok", kind)
    return Finding(
        "bad",
        f"{kind}: this torch has no kernels for it ({' '.join(built_for)})",
        "install a torch for an older or newer CUDA, whichever knows the card, or use --device cpu",
    )


def _check_idle_card(nvidia: "Nvidia", built: str | None) -> Finding:
    """Why torch does not use what is there."""
    from omni.device import why_no_cuda
    from omni.device.nvidia import driver_mend, parse_cuda, too_old

    there = f"an NVIDIA device ({nvidia.devices[0]}) that torch can't use"
    if built is None:
        what = "this torch was built for CPUs alone"
        mend = "install torch and torchaudio with CUDA: pip install --force-reinstall from PyPI"
        return Finding("bad", f"{there}: {what}", mend)
    fault = too_old(nvidia, parse_cuda(built))
    if fault:
        return Finding("bad", f"{there}: {fault}", driver_mend(parse_cuda(built)))
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return Finding(
            "note", f"{there}: CUDA_VISIBLE_DEVICES hides it", "unset it to use the card"
        )
    mend = "give a container the card (docker run --gpus all); look at nvidia-smi and dmesg"
    return Finding("bad", f"{there}: {why_no_cuda()}", mend)


def check_codecs() -> Iterator[Finding]:
    """What libsndfile decodes."""
    import soundfile

    known = soundfile.available_formats()
    for needed, use in (
        ("FLAC", "LibriSpeech"),
        ("OGG", "the demo corpus"),
        ("WAV", "smoke clips"),
        ("MP3", "podcasts"),
    ):
        if needed in known:
            yield Finding("ok", f"libsndfile {soundfile.__libsndfile_version__} decodes {needed}")
        else:
            yield Finding(
                "bad" if needed != "MP3" else "note",
                f"libsndfile can't decode {needed} ({use})",
                "pip install -U soundfile",
            )


def check_disk(out: Path) -> Finding:
    """Room where the shards go."""
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("bad", f"{folder} can't be written", "give --out another folder")
    free = shutil.disk_usage(folder).free / 1e9
    if free < ENOUGH_DISK_GB:
        return Finding(
            "note",
            f"{free:.1f} GB free in {folder}",
            f"train-clean-100 needs about {ENOUGH_DISK_GB} GB",
        )
    return Finding("ok", f"{free:.0f} GB free in {folder}")


def check_encoder(name: str) -> Finding:
    """Which weights would be used."""
    from omni.whisper.encoder import encoder_hash
    from omni.whisper.weights import find_weights

    try:
        weights = find_weights(name)
    except OmniError as error:
        return Finding("bad", f"{error.what} ({error.where})", error.mend)
    digest = encoder_hash(
        {key.removeprefix("encoder."): value for key, value in weights.tensors.items()}
    )
    return Finding("ok", f"encoder {name} from {weights.source}, hash {digest[:12]}")


def check_lm(name: str) -> Finding:
    """Which LM would be used."""
    from omni.nanochat import load_checkpoint

    try:
        lm, tokenizer, meta = load_checkpoint(name)
    except OmniError as error:
        return Finding("bad", f"LM: {error.what} ({error.where})", error.mend)
    c = lm.config
    return Finding(
        "ok",
        f"LM {name}: era {lm.era.name}, {c.n_layer} layers of {c.n_embd}, vocabulary {tokenizer.vocab_size}, kind {meta['kind']}",
    )


def check_network() -> Iterator[Finding]:
    """Which sources of weights and audio answer; none is needed if what they bring is here."""
    from extract.corpora.openslr import MIRRORS

    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    for name, url in (("Hugging Face hub", hub), *(("OpenSLR", mirror) for mirror in MIRRORS)):
        parts = urllib.parse.urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            with socket.create_connection((parts.hostname or "", port), NETWORK_TIMEOUT_SECONDS):
                yield Finding("ok", f"{name} answers at {parts.hostname}")
        except OSError as error:
            yield Finding(
                "note",
                f"{name} does not answer at {parts.hostname}",
                f"{error}; needed only for downloads",
            )


if __name__ == "__main__":
    sys.exit(main())
