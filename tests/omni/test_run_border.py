"""A run folder may be somebody's bytes or half of what it was: one line each, or success."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate_kit import GONE, mutated
from run_kit import FINGERPRINT, run_config, run_provenance
from training_kit import tiny_lm

from omni import runs
from omni.bridge.projector import Projector, build_projector
from omni.errors import OmniError

LM = tiny_lm()
SIZES = {"d_in": 8, "n_embd": 64, "n_ve": LM.n_ve, "kv_dim": LM.kv_dim, "stack": 2, "hidden": 8}


def projector() -> Projector:
    torch.manual_seed(0)
    return build_projector("mlp", **SIZES)


CONFIG = run_config(projector().config)
PROVENANCE = run_provenance(LM)


def make(folder: Path) -> Path:
    """A whole run."""
    runs.create_run(folder, CONFIG, PROVENANCE)
    for which in runs.WHICH:
        runs.save_projector(folder, which, projector())
    runs.append_metrics(folder, {"step": 1, "loss": 2.5, "token_accuracy": 0.5})
    runs.append_metrics(folder, {"step": 1, "eval": {"dev-x": {"ce": 2.0}}})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "r")


def use(folder: Path) -> None:
    """What every reader of a run asks of it."""
    run = runs.load_run(folder)
    run.check_lm(LM)
    run.check_features(FINGERPRINT)
    for which in runs.WHICH:
        run.projector(which)
    run.clean_splits("best")
    run.metrics()
    assert isinstance(run.config["train"]["shards"], list)


def one_line(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(OmniError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# -- config and provenance -----------------------------------------------------------------------


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


WHOLE = {"config.json": {"schema": 1, **CONFIG}, "provenance.json": PROVENANCE}
FIELDS = [(file, place) for file, tree in WHOLE.items() for place in places(tree)]
ODD = st.one_of(
    st.just(GONE),
    st.sampled_from([None, True, -1, 0, 10**12, 10**30, -(10**30), 1.5, 1e308, "", "x" * 5000]),
    st.sampled_from([float("nan"), float("inf"), [], {}, [[]], [None], {"a": {"b": [1]}}]),
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s, max_size=3)),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(field=st.sampled_from(FIELDS), value=ODD)
def test_any_field_of_a_run_may_be_anything(
    tmp_path: Path, field: tuple[str, tuple[Any, ...]], value: Any
) -> None:
    folder = tmp_path / "r"
    if not folder.exists():
        make(folder)
    file, place = field
    for name, tree in WHOLE.items():
        changed = mutated(tree, place, value) if name == file else tree
        (folder / name).write_text(json.dumps(changed))
    with contextlib.suppress(OmniError):  # anything else, a hang or a full memory fails the test
        use(folder)


@pytest.mark.parametrize("file", ["config.json", "provenance.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff\xfe\x00", b"[" * 100_000,
        b'{"schema":' * 100_000, b'{"schema": 1, "step": 1, "x": ' + b"[" * 100_000, b"{}\n{}\n",
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_json(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content + (b"\n" if file == "metrics.jsonl" else b""))
    one_line(file, lambda: use(folder))


def test_a_fault_is_named_by_file_and_field(folder: Path) -> None:
    broken = mutated(WHOLE["config.json"], ("projector", "n_embd"), 10**12)
    (folder / "config.json").write_text(json.dumps(broken))
    one_line(r"`projector\.n_embd`.*less than.*config\.json", lambda: use(folder))
    (folder / "provenance.json").unlink()
    (folder / "config.json").write_text(json.dumps(WHOLE["config.json"]))
    one_line(r"no such file .*provenance\.json", lambda: use(folder))


def test_what_is_no_folder_and_what_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    one_line("can't read.*file", lambda: runs.load_run(tmp_path / "file"))
    (tmp_path / "config.json").mkdir()
    one_line("not a regular file", lambda: runs.load_run(tmp_path))
    one_line("can't read", lambda: runs.load_run(tmp_path / ("x" * 500)))


def test_fields_without_a_name_are_kept(folder: Path) -> None:
    written = {**WHOLE["config.json"], "later": {"a": [1]}}
    (folder / "config.json").write_text(json.dumps(written))
    assert runs.load_run(folder).config == written


# -- projectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "conv", "linear"])
@pytest.mark.parametrize("key", ["d_in", "n_embd", "n_ve", "kv_dim", "stack", "hidden"])
def test_sizes_that_the_tensors_dont_have_allocate_nothing(
    folder: Path, name: str, key: str
) -> None:
    limit = 4096 if key == "stack" else 1 << 20
    sizes = {**CONFIG["projector"], "name": name, key: limit}
    whole = {**WHOLE["config.json"], "projector": sizes}
    (folder / "config.json").write_text(json.dumps(whole))
    one_line("does not fit|beyond any tensor", lambda: runs.load_run(folder).projector("best"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["row_head.weight", "mix", "ve_head.bias"])
def test_weights_that_are_not_finite_are_named(folder: Path, key: str, value: float) -> None:
    bad = projector()
    bad.state_dict()[key].view(-1)[-1] = value
    runs.save_projector(folder, "best", bad)
    one_line(f"{key} holds numbers that are not finite", lambda: runs.load_run(folder).projector())


def test_other_tensors_than_the_configs(folder: Path) -> None:
    def damaged(change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        tensors = dict(projector().state_dict())
        change(tensors)
        safetensors.torch.save_file(tensors, folder / "projector-best.safetensors")
        one_line("does not fit", lambda: runs.load_run(folder).projector())

    damaged(lambda t: t.pop("mix"))
    damaged(lambda t: t.update(more=torch.zeros(1)))
    damaged(lambda t: t.update(mix=torch.zeros(2)))
    damaged(lambda t: t.update(mix=torch.zeros(1, dtype=torch.int64)))
    damaged(lambda t: t.clear())


@pytest.mark.parametrize(
    "header",
    [
        b"", b"\x00", (2**63).to_bytes(8, "little"), (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]", (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (62).to_bytes(8, "little")
        + b'{"mix":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}'[:62] + b"\0" * 4,
    ],
)  # fmt: skip
def test_a_damaged_header(folder: Path, header: bytes) -> None:
    (folder / "projector-best.safetensors").write_bytes(header)
    one_line("damaged safetensors", lambda: runs.load_run(folder).projector())


def test_any_cut_of_a_projector_file(folder: Path) -> None:
    file = folder / "projector-best.safetensors"
    whole = file.read_bytes()
    for size in range(0, len(whole), len(whole) // 40):
        file.write_bytes(whole[:size])
        one_line("damaged safetensors", lambda: runs.load_run(folder).projector())


# -- metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail", ['{"step": 2, "lo', "{", '{"step": 2, "x": "\u00e9'.encode()[:-1].decode("latin1"), " "]
)
def test_a_half_last_line_is_left_out_as_resume_leaves_it_out(folder: Path, tail: str) -> None:
    before = runs.load_run(folder).metrics()
    with (folder / "metrics.jsonl").open("a", encoding="latin1") as out:
        out.write(tail)
    assert runs.load_run(folder).metrics() == before
    runs.trim_metrics(folder, 1)
    assert runs.load_run(folder).metrics() == before
    runs.append_metrics(folder, {"step": 2, "loss": 1.0})
    assert len(runs.load_run(folder).metrics()) == len(before) + 1


@pytest.mark.parametrize(
    "line", ["", "{", '{"step": "2"}', '{"loss": 1}', '{"step": -1}', "\u2028", '{"step": 2}{}']
)
def test_another_damaged_line_is_named_by_its_number(folder: Path, line: str) -> None:
    file = folder / "metrics.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first, line + "\n", *rest]))
    one_line(r"metrics\.jsonl, line 2", lambda: runs.load_run(folder).metrics())
    one_line(r"metrics\.jsonl, line 2", lambda: runs.trim_metrics(folder, 1))


def test_a_last_line_without_a_break_counts_if_it_is_whole(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as out:
        out.write('{"step": 2}')
    assert runs.load_run(folder).metrics()[-1] == {"step": 2}


def test_metrics_that_cannot_be_written(folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    one_line(r"can't write.*metrics\.jsonl", lambda: runs.append_metrics(folder, {"step": 1}))
    one_line(r"not a regular file.*metrics\.jsonl", lambda: runs.load_run(folder).metrics())


@pytest.mark.parametrize("kind", ["pipe", "endless", "link to itself", "link to nowhere"])
def test_metrics_that_are_no_file_are_not_waited_for(folder: Path, kind: str) -> None:
    file = folder / "metrics.jsonl"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        targets = {"endless": "/dev/zero", "link to itself": file.name, "link to nowhere": "x/y"}
        file.symlink_to(targets[kind])
    one_line(r"metrics\.jsonl", lambda: runs.load_run(folder).metrics())


# -- state ---------------------------------------------------------------------------------------


def state() -> tuple[dict[str, Any], Projector, torch.optim.Optimizer]:
    """A state after one step, and fresh modules that it fits."""
    trained = projector()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.1)
    for p in trained.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    whole = {
        "step": 1, "position": [0, 1], "best": 1.5, "projector": trained.state_dict(),
        "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "eval": "{}", "world": 1,
    }  # fmt: skip
    fresh = projector()
    return whole, fresh, torch.optim.AdamW(fresh.parameters(), lr=0.1)


def resume(folder: Path) -> None:
    _, fresh, optimizer = state()
    runs.restore_state(runs.load_state(folder), fresh, optimizer, str(folder / "state.pt"))


@pytest.mark.parametrize("odd", [GONE, None, "x", -1, [], {}, torch.zeros(3), [-1, -1], {"a": 1}])
@pytest.mark.parametrize("key", sorted(state()[0]))
def test_any_field_of_a_state_may_be_anything(folder: Path, key: str, odd: Any) -> None:
    whole = state()[0]
    runs.save_state(folder, whole)
    resume(folder)
    runs.save_state(folder, mutated(whole, (key,), odd))
    if key == "best" and isinstance(odd, int):
        return
    one_line(r"state\.pt", lambda: resume(folder))


def test_a_state_of_another_projector_or_not_finite(folder: Path) -> None:
    whole, _, _ = state()
    wider = build_projector("mlp", **{**SIZES, "hidden": 16})
    runs.save_state(folder, {**whole, "projector": wider.state_dict()})
    one_line("does not fit", lambda: resume(folder))
    whole["optimizer"]["state"][0]["exp_avg"].fill_(float("nan"))
    runs.save_state(folder, whole)
    one_line("exp_avg of parameter 0 holds numbers that are not finite", lambda: resume(folder))


def test_a_state_that_claims_more_than_it_holds(folder: Path) -> None:
    runs.save_state(folder, {**state()[0], "rng": torch.zeros(1).expand(10**12)})
    one_line("more than the file holds", lambda: runs.load_state(folder))
