"""The cluster's nodes alone decide where actors compute; what the driver has decides nothing.

.venv/bin/python -m pytest tests/extract/test_placement.py
"""

from pathlib import Path

import pytest
import torch
from extract_kit import command
from hypothesis import given
from hypothesis import strategies as st
from speech_kit import noise_tree, tiny_encoder

from cli.extract import main
from extract import ray_engine
from extract.claims import Kind, claim
from extract.pipeline import Job, Stats
from extract.placement import Placement, place
from omni.errors import OmniError
from omni.formats.shard_writer import SplitSpec

HEAD, CARDS, CPUS = {"CPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "device", "actors", "threads", "placed"),
    [
        ([HEAD, CARDS], "auto", None, None, Placement("cuda", 4, 1, 8)),
        ([HEAD, CARDS, CARDS], "cuda", None, None, Placement("cuda", 8, 1, 8)),
        ([CARDS, {"CPU": 256.0, "GPU": 1.0}], "cuda", 2, 3, Placement("cuda", 2, 1, 8, 3)),
        ([{"GPU": 1.0}], "auto", None, None, Placement("cuda", 1, 1, 2)),
        ([HEAD, CPUS, CPUS], "auto", None, None, Placement("cpu", 5, 4, 2, 4)),
        ([HEAD, CPUS, CPUS], "cpu", None, 2, Placement("cpu", 10, 2, 2, 2)),
        ([CARDS], "cpu", None, 8, Placement("cpu", 4, 8, 2, 8)),
        ([HEAD], "cpu", 3, 1, Placement("cpu", 3, 1, 2, 1)),
        ([], "auto", None, None, Placement("cpu", 1, 1, 2, 1)),
        ([HEAD], "cuda", 2, None, Placement("cuda", 2, 1, 2)),  # nodes will join
    ],
)
def test_nodes_decide(
    nodes: list[dict[str, float]],
    device: str,
    actors: int | None,
    threads: int | None,
    placed: Placement,
) -> None:
    assert place(nodes, device, actors, threads) == placed


def test_a_card_that_is_not_there_or_has_a_number_is_refused() -> None:
    with pytest.raises(OmniError, match=r"cluster has no GPU .*--device cpu"):
        place([HEAD, CPUS], "cuda")
    with pytest.raises(OmniError, match="deals its cards itself"):
        place([CARDS], "cuda:1")


@given(
    st.lists(
        st.fixed_dictionaries({"CPU": st.integers(1, 64), "GPU": st.integers(0, 8)}), min_size=1
    ),
    st.sampled_from(["auto", "cpu"]),
    st.none() | st.integers(1, 64),
)
def test_all_actors_that_are_not_asked_for_find_room(
    nodes: list[dict[str, float]], device: str, threads: int | None
) -> None:
    placed = place(nodes, device, None, threads)
    if placed.device == "cuda":
        assert placed.actors == sum(node["GPU"] for node in nodes)
    else:
        room = sum(node["CPU"] // placed.cpus for node in nodes)
        assert placed.actors == max(room, 1)
        assert room or threads


class _Asked(Exception):  # noqa: N818
    """What would have been given to the cluster."""


@pytest.mark.parametrize(
    ("nodes", "here", "kind"),
    [
        ([HEAD, CARDS], False, Kind("cuda", "float16")),
        ([CPUS, CPUS], True, Kind("cpu", "float32")),
    ],
)
def test_the_split_is_claimed_for_what_the_actors_compute_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    here: bool,
    kind: Kind,
) -> None:
    """A head without a card, and a driver with one before a cluster without: its card stays idle."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(here))
    monkeypatch.setattr(ray_engine, "cluster_nodes", lambda: nodes)
    seen: list[object] = []

    def run_ray(
        job: Job, encoder: object, shards: list[int], placed: Placement, *_: object
    ) -> Stats:
        other = Kind("cpu" if kind.device == "cuda" else "cuda", "float32")
        refused = pytest.raises(OmniError, match=f"another process makes this split on {kind}")
        with refused, claim(job.spec, other, [], mixed=False):
            pass
        with claim(job.spec, kind, [], mixed=False):
            seen.extend([encoder.device.type, placed.device, job.batch_size, job.decode_workers])
        raise _Asked

    monkeypatch.setattr(ray_engine, "run_ray", run_ray)
    corpus, out = noise_tree(tmp_path, 4), tmp_path / "out"
    args = command(corpus, tiny_encoder(tmp_path / "tiny"), out, "--engine", "ray")
    args[args.index("--device") + 1] = "auto"
    assert main(args) == 70
    assert seen == [
        "cpu",
        kind.device,
        64 if kind.device == "cuda" else 2,
        8 if kind.device == "cuda" else 2,
    ]


def test_a_split_begun_on_cards_is_not_finished_by_a_cluster_without(tmp_path: Path) -> None:
    spec = SplitSpec(tmp_path / "s", "s", "train", {"dtype": "float16"}, 4)
    cards, cpus = place([CARDS]), place([CPUS])
    refused = pytest.raises(OmniError, match=r"cuda in float16, this one on cpu in float32")
    with claim(spec, cards.kind, [], mixed=False), refused, claim(spec, cpus.kind, [], mixed=False):
        pass
