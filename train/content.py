"""What a run was trained on, as a record to hold a resumed run to: contents, not paths.

Must not know how the data is used.
"""

import hashlib
import json
from collections.abc import Sequence

from omni.formats.run_files import Content
from omni.formats.splits import SplitIndex
from train.passes import Shard


def content_of(splits: Sequence[SplitIndex], shards: Sequence[Shard], tasks: str = "") -> Content:
    """The record of these splits, of which `shards` says what takes part and how often. tasks: sha256
    of the table that is asked, "" where there is none."""
    rows = [[list(shard.places), shard.weight] for shard in shards]
    content: Content = {
        "splits": [
            {
                "split": split.split,
                "n": split.n,
                "sha256": _sha256("\n".join(entry.sidecar["sha256"] for entry in split.shards)),
            }
            for split in splits
        ],
        "rows": _sha256(json.dumps(rows)),
    }
    if tasks:
        content["tasks"] = tasks
    return content


def changes(then: Content, now: Content) -> list[str]:
    """What differs, in words a user can act on; empty if it is the same data."""
    before = {(s["split"], s["sha256"]): s for s in then["splits"]}
    after = {(s["split"], s["sha256"]): s for s in now["splits"]}
    gone = {s["split"]: s for key, s in before.items() if key not in after}
    come = {s["split"]: s for key, s in after.items() if key not in before}
    found = []
    for name in sorted({*gone, *come}):
        if name in gone and name in come:
            a, b = gone[name]["n"], come[name]["n"]
            count = f"{a:,} utterances, now {b:,}" if a != b else f"{a:,} utterances, now others"
            found.append(f"{name}: {count}")
        else:
            found.append(f"{name}: {'gone' if name in gone else 'new'}")
    if found:
        return found
    if then["splits"] != now["splits"]:
        names = [", ".join(s["split"] for s in one["splits"]) for one in (then, now)]
        return [f"splits {names[0]}, now {names[1]}"]
    if then.get("tasks") != now.get("tasks"):
        return ["another table of tasks"]
    if then["rows"] != now["rows"]:
        return ["other utterances of the same splits take part (held out, too long, or weights)"]
    return []


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
