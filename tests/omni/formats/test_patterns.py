"""Names of shard folders: what is there is that folder, what is not is a pattern, and bounded.

.venv/bin/python -m pytest tests/omni/formats/test_patterns.py
"""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import speech, write_split

from omni.errors import OmniError
from omni.formats.patterns import find_folders
from omni.formats.splits import find_splits
from train.sides import choose_sides

ODD = [
    "data [v2]", "a{b", "a}b", "a{b,c}", "back\\slash", "plus (1)", "what?", "star*", "[", "]", "{}",
    "{1..3}", "a\nb", " ", "ü", "**", "[!x]", "{a,{b,c}}", "\\{x\\}", "$HOME", "~", "-x", "#", "%41",
]  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    root = tmp_path / "shards"
    write_split(root, "train-x", speech(6))
    write_split(root, "dev-x", speech(4, 5, 500, "bob"), role="eval")
    return root


def names(pattern: str) -> list[str]:
    return [split.split for split in find_splits(pattern)]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_that_is_there_is_that_folder(
    shards: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = shards.parent / name
    odd.mkdir()
    os.rename(shards, odd / "sh")
    both = ["dev-x", "train-x"]
    assert names(f"{odd}/sh") == both
    assert names(f"{odd}/sh/") == both
    assert names(f"{odd}/sh/train-x") == ["train-x"]
    assert names(f"{odd}/*") == both
    assert names(f"{odd}/s[gh]") == both
    assert names(f"{odd}/sh/{{dev,train}}-x") == both
    assert names(f"{odd}/{{sh,sh}}/t*") == ["train-x"]
    assert sorted(names(f"{odd}/**")) == both
    monkeypatch.chdir(odd)
    assert names("sh") == names("./sh") == names("s*") == both
    monkeypatch.chdir(odd.parent)
    assert names(f"{name}/sh") == names(f"{name}/s?") == both


@pytest.mark.parametrize("name", ["data [v2]", "a{b", "a{b,c}", "back\\slash"])
def test_training_and_its_judges_are_found_there(shards: Path, name: str) -> None:
    odd = shards.parent / name
    os.rename(shards, odd)
    sides = choose_sides([f"{odd}/train-x"], eval_roots=[f"{odd}/dev-*"])
    assert list(sides.judges) == ["dev-x"]
    assert [split.split for split, _ in sides.train] == ["train-x"]


@pytest.mark.parametrize("name", ["x [1]", "a{b", "none"])
def test_a_folder_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    if "[" in name:
        assert find_splits(f"{tmp_path}/{name}") == []
    else:
        with pytest.raises(OmniError, match="no such shard folder"):
            find_splits(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    "pattern",
    [
        "x-{000000..999999}", "{1..99999999999999999999}", "{1..1000}{1..1000}", "{a,b}" * 30,
        "{" * 1000 + "}" * 1000, "{a," * 1000 + "}" * 1000, "{-999999999..999999999..2}",
        "memory://b/{000000..999999}", "{a{1..9999},b{1..9999}}", "x" * 100_000, "{,}" * 40,
        "{{1..999},{1..999}}{1..999}",
    ],
)  # fmt: skip
def test_a_list_of_too_many_names_is_refused(pattern: str) -> None:
    with pytest.raises(OmniError, match=r"brace list of more|a name of"):
        find_folders(pattern)


def test_braces_and_globs(tmp_path: Path) -> None:
    for name in ("a/x1", "a/x2", "b/x1", "b/y/x1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)  # a circle

    def found(pattern: str) -> list[str]:
        return [str(p.relative_to(tmp_path)) for p in find_folders(f"{tmp_path}/{pattern}")]

    assert found("a/x{1..2}") == ["a/x1", "a/x2"]
    assert found("{a,b}/x1") == found("{a/x1,b/x1}") == ["a/x1", "b/x1"]
    assert found("[ab]/x?") == ["a/x1", "a/x2", "b/x1"]
    assert found("b/*") == ["b/x1", "b/y"]
    assert found("b/**/x1") == ["b/x1", "b/y/x1"]
    assert found("b/**/**/**/x1") == ["b/x1", "b/y/x1"]
    assert set(found("**/x1")) >= {"a/x1", "b/x1", "b/y/x1"}
    assert found("{a,a,a}/x1") == ["a/x1"]
    many = ",".join(f"some-longer-name-{i}" for i in range(300))
    assert found(f"{{a,{many}}}/x?") == ["a/x1", "a/x2"]  # longer than a file's name may be
    assert found("none/*") == found("*/none") == []
    assert [str(p) for p in find_folders(f"{{{tmp_path}/a,{tmp_path}/b}}")] == [
        f"{tmp_path}/a", f"{tmp_path}/b",
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab/{}[],.*?\\1!-", max_size=24))
def test_any_pattern_is_found_or_told(tmp_path_factory, pattern: str) -> None:
    here = tmp_path_factory.getbasetemp() / "patterns" / "ab"
    here.mkdir(parents=True, exist_ok=True)
    found = []
    with contextlib.suppress(OmniError):
        found = find_splits(f"{here}/x{pattern.replace('..', '1')}")
    assert found == []  # there is none
