"""Which corpus the options mean. Must not know how any of them is laid out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from extract.corpora import hub, openslr
from extract.corpora.demo import DEMO_SPLITS, demo_manifest
from extract.corpora.folder import folder_manifest
from extract.corpora.librispeech import PUBLISHED, canonical_split, librispeech_manifest
from extract.corpora.mini import MINI_SPLIT, mini_manifest
from extract.corpora.noise import NOISE_SPLITS, noise_manifest
from extract.corpora.smoke import smoke_manifest
from omni.errors import OmniError
from omni.formats.files import safe_name
from omni.formats.manifest import Manifest, read_manifest
from omni.formats.records import Role

EMBEDDED = ("demo", "noise", "smoke", MINI_SPLIT)


@dataclass(frozen=True)
class Source:
    """Where speech comes from; at most one of root, audio_dir and manifest."""

    split: str
    root: Path | None = None  # an unpacked LibriSpeech tree
    audio_dir: Path | None = None  # any folder of audio
    transcripts: str = "auto"
    role: Role | None = None  # "train" or "eval"; None: as the split's name or the manifest says
    manifest: Path | None = None  # a manifest parquet
    source: str = "auto"  # of a LibriSpeech split: disk, hf, openslr, or auto for the first of them
    downloads: Path = Path("data")  # what is downloaded goes there


def find_manifests(source: Source) -> list[Manifest]:
    """The manifests of a source: three for the demo, two for noise, else one.

    Raises:
        OmniError: two sources at once, or none for a split that is not embedded; a role for a split
            that has one by what it holds; a split's name that leads out of a folder.
    """
    if source.manifest is None:  # which names its own
        safe_name(canonical_split(source.split), "a split")
    given = [p for p in (source.root, source.audio_dir, source.manifest) if p is not None]
    if len(given) > 1:
        raise OmniError("--root, --audio-dir and --manifest exclude one another")
    if source.transcripts != "auto" and source.audio_dir is None:
        raise OmniError("a table goes with a folder of audio", "--transcripts", "give --audio-dir")
    if source.manifest is not None:
        manifest = read_manifest(source.manifest)
        return [replace(manifest, role=source.role or manifest.role)]
    if source.audio_dir is not None:
        return [folder_manifest(source.audio_dir, source.split, source.transcripts, source.role)]
    if source.root is not None:
        root = unpacked(source.root, source.split)
        return [librispeech_manifest(root, source.split, source.role)]
    if source.split in (*EMBEDDED, *DEMO_SPLITS, *NOISE_SPLITS) and source.role is not None:
        raise OmniError(f"the role of {source.split} can't be changed", "--role")
    if source.split == "demo":
        return [demo_manifest(split) for split in DEMO_SPLITS]
    if source.split in DEMO_SPLITS:
        return [demo_manifest(source.split)]
    if source.split == "noise":
        return [noise_manifest(split, source.downloads / "noise") for split in NOISE_SPLITS]
    if source.split in NOISE_SPLITS:
        return [noise_manifest(source.split, source.downloads / "noise")]
    if source.split == "smoke":
        return [smoke_manifest()]
    if source.split == MINI_SPLIT:
        return [mini_manifest()]
    return [librispeech_manifest(fetch(source), source.split, source.role)]


def unpacked(root: Path, split: str) -> Path:
    """`root`, its `SPLIT.tar.gz` unpacked there if that is all there is of the split.

    The plan is shuffled and gzip can only be read from its beginning: clip by clip out of the archive
    takes nine times as long on 300 clips and grows with its square; unpacking costs a fifth of decoding.

    Raises:
        OmniError: a damaged archive, or a folder that can't be written to.
    """
    split = canonical_split(split)
    archive = root / f"{split}.tar.gz"
    if archive.is_file() and not any((root / p / split).is_dir() for p in ("", "LibriSpeech")):
        try:
            openslr.unpack(archive, root, split)
        except OSError as error:
            mend = "unpack it where there is room, give that folder with --root"
            what = f"the archive can't be unpacked beside itself ({error.strerror})"
            raise OmniError(what, str(archive), mend) from error
    return root


def fetch(source: Source) -> Path:
    """The root of a LibriSpeech tree that holds the split, brought here if it must be.

    Raises:
        OmniError: no source has it; the message says why for each.
    """
    split = canonical_split(source.split)
    if split not in PUBLISHED:
        mend = (
            f"give --root or --audio-dir, or one of {', '.join(EMBEDDED)}, {', '.join(PUBLISHED)}"
        )
        raise OmniError("where is the corpus?", f"--split {source.split}", mend)
    if (source.downloads / "LibriSpeech" / split).is_dir():
        return source.downloads
    if source.source == "disk":
        mend = "give --root, the folder of the unpacked tree, or another --source"
        raise OmniError(f"no {split} on this disk", str(source.downloads), mend)
    fetchers: dict[str, Callable[[str, Path], Path]] = {
        "hf": hub.fetch_split,
        "openslr": openslr.fetch_split,
    }
    if PUBLISHED[split].resource != 12 or (source.downloads / f"{split}.tar.gz").is_file():
        del fetchers["hf"]  # not there, or needless
    failures = []
    for name, fetcher in fetchers.items():
        if source.source in (name, "auto"):
            try:
                return fetcher(split, source.downloads)
            except OmniError as error:
                failures.append(f"{name}: {error}")
    raise OmniError(
        "no source brings the split", split, "; ".join(failures) or f"not at {source.source}"
    )
