"""An uninterrupted extraction to hold others against: its command, and the bytes that must be equal."""

import json
from pathlib import Path


def command(corpus: Path, encoder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--root", str(corpus), "--split", "dev-clean", "--encoder", str(encoder)),
        *("--out", str(out), "--manifests", str(out / "manifests"), "--shard-size", "4"),
        *("--device", "cpu", "--threads", "1", *more),
    ]


def deterministic_bytes(folder: Path) -> dict[str, object]:
    """Tars and the deterministic part of what lies beside them."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            content.pop("environment", None)
            content.pop("seconds", None)
            found[path.name] = content
        else:
            found[path.name] = path.read_bytes()
    return found
