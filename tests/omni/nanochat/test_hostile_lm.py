"""An LM's meta, tensors and tokenizer may be anybody's bytes: one line each, bounded time and memory."""

import contextlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate_kit import GONE, mutated
from nanochat_kit import CONFIG, small_encoding, write
from nanochat_reference import ruled_state

from omni.errors import OmniError
from omni.nanochat import Tokenizer, from_state_dict, load_checkpoint
from omni.nanochat.config import config_dict
from omni.nanochat.tokenizer import read_encoding


def one_line(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(OmniError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


# -- meta ----------------------------------------------------------------------------------------

META = {
    "step": 7,
    "model_config": config_dict(CONFIG),
    "user_config": {"eval_tokens": 1, "depth": 3},
    "softcap": 15.0,
    "rope_bf16": True,
    "kind": "base",
}
PLACES = [(key,) for key in META] + [
    (key, inner) for key in ("model_config", "user_config") for inner in META[key]
]
ODD = st.one_of(
    st.just(GONE),
    st.sampled_from([None, True, -1, 0, 1, 10**6, 10**12, 10**30, -(10**30), 1.5, 1e308, ""]),
    st.sampled_from([float("nan"), float("inf"), [], {}, [[]], "x" * 5000, "S" * 5000]),
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s, max_size=3)),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(PLACES), value=ODD)
@pytest.mark.filterwarnings("ignore:eras C and C20")
def test_any_field_of_a_meta_may_be_anything(
    tmp_path: Path, place: tuple[str, ...], value: Any
) -> None:
    if not (tmp_path / "model_000007.pt").exists():
        write(tmp_path, era="C")
    meta = mutated(META, place, value)
    (tmp_path / "meta_000007.json").write_text(json.dumps(meta))
    with contextlib.suppress(OmniError):  # anything else fails the test
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"model_config":' * 100_000]
)
def test_a_meta_that_is_no_such_json(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    (tmp_path / "meta_000007.json").write_bytes(content)
    one_line("damaged JSON|object.*meta_000007", lambda: load_checkpoint(tmp_path))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_embd": 10**12}, "n_embd is 1000000000000"),
        ({"n_embd": 4096}, r"n_embd is 4,096, transformer\.wte\.weight has the shape"),
        ({"n_layer": 10**9}, "n_layer is 1000000000"),
        ({"n_layer": 10**6}, "n_layer is 1,000,000, the file holds"),
        ({"sequence_len": 10**7}, "rotary table beyond all bounds"),
        ({"vocab_size": 1 << 23}, "rows for a vocabulary|don't belong together"),
        ({"n_head": True}, "n_head is True"),
        ({"n_kv_head": -2}, "n_kv_head is -2"),
        ({"window_pattern": 5}, "window_pattern is 5"),
        ({"window_pattern": ["S"]}, "window_pattern is"),
    ],
)
def test_sizes_are_held_against_the_tensors_before_anything_is_made(
    change: dict[str, Any], match: str
) -> None:
    fields = {**config_dict(CONFIG), **change}
    one_line(match, lambda: from_state_dict(ruled_state("E", CONFIG), fields))


# -- tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "key", ["lm_head.weight", "resid_lambdas", "transformer.h.1.attn.c_q.weight"]
)
def test_weights_that_are_not_finite_are_named(tmp_path: Path, key: str, value: float) -> None:
    state = write(tmp_path)
    state[key].view(-1)[-1] = value
    torch.save(state, tmp_path / "model_000007.pt")
    one_line(f"{key} holds numbers that are not finite", lambda: load_checkpoint(tmp_path))


@pytest.mark.parametrize(
    "bomb",
    [
        lambda t: torch.zeros(1).expand(t.shape),
        lambda t: torch.zeros(1).expand(10**9, 10**3),
        lambda t: t.to_sparse(),
        lambda t: torch.empty(t.shape, device="meta"),
    ],
)
def test_tensors_that_claim_more_than_the_file_holds(
    tmp_path: Path, bomb: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    state = write(tmp_path)
    state["lm_head.weight"] = bomb(state["lm_head.weight"])
    torch.save(state, tmp_path / "model_000007.pt")
    one_line("claim more|sparse, quantised or empty", lambda: load_checkpoint(tmp_path))


def test_a_packed_file_is_not_unpacked(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "model_000007.pt"
    with zipfile.ZipFile(file) as plain:
        content = {entry.filename: plain.read(entry) for entry in plain.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in content.items():
            packed.writestr(name, data)
    one_line("unpacks to more than it is", lambda: load_checkpoint(tmp_path))


@pytest.mark.parametrize(
    "content", [[1, 2], "x", None, {"a": 1}, {1: torch.zeros(1)}, torch.ones(2)]
)
def test_what_is_no_dict_of_tensors(tmp_path: Path, content: object) -> None:
    write(tmp_path)
    torch.save(content, tmp_path / "model_000007.pt")
    one_line("no plain state dict", lambda: load_checkpoint(tmp_path))


# -- tokenizer -----------------------------------------------------------------------------------

RANKS = {bytes([value]): value for value in range(256)}
GOOD = {
    "name": "x",
    "pat_str": r"[\s\S]",
    "mergeable_ranks": RANKS,
    "special_tokens": {"<|bos|>": 256},
}


def pickled(state: object) -> bytes:
    """An Encoding object, then BUILD with that state."""
    inner = pickle.dumps(state, protocol=4)[2:-1]  # without PROTO and STOP
    return b"\x80\x04ctiktoken.core\nEncoding\n)\x81" + inner + b"b."


def test_the_good_state_reads() -> None:
    assert read_encoding(pickled(GOOD)).n_vocab == 257


@pytest.mark.parametrize("field", sorted(GOOD))
@pytest.mark.parametrize("odd", [GONE, None, 3, "", [], {}, b"x", {b"a": "b"}, {"a": -1}, [[[]]]])
def test_any_field_of_a_tokenizer_may_be_anything(field: str, odd: object) -> None:
    state: dict[str, Any] = dict(GOOD)
    if odd is GONE:
        del state[field]
    else:
        state[field] = odd
    if (field, odd) == ("name", ""):
        return
    one_line("tokenizer", lambda: Tokenizer(read_encoding(pickled(state), "file")))


@pytest.mark.parametrize(
    "change",
    [
        {"special_tokens": {"<|bos|>": 300}},
        {"special_tokens": {"<|bos|>": 255}},
        {"special_tokens": {"<|bos|>": 256, "<|x|>": 256}},
        {"special_tokens": {"<|bos|>": -1}},
        {"special_tokens": {"<|bos|>": True}},
        {"mergeable_ranks": {**RANKS, b"\x00": 1}},
        {"mergeable_ranks": {b"a": 0}, "special_tokens": {"<|bos|>": 1}},
        {"mergeable_ranks": {str(k): v for k, v in RANKS.items()}},
    ],
)
def test_ids_that_repeat_or_leave_gaps(change: dict[str, Any]) -> None:
    one_line("gaps or repeat|lack single bytes", lambda: read_encoding(pickled({**GOOD, **change})))


@pytest.mark.parametrize(
    "pattern",
    [
        "(", "", "a", r"\w+", ".", r"x*", r"(?:a|aa)+(?!a)c|[\s\S]", r"(a+)+$|[\s\S]*?", "(?<name>",
        r"((a+)+)+b|\S", "[\\s\\S]" * 5000, r"(?:(?:a?){30}){30}b|\s",
    ],
)  # fmt: skip
def test_a_split_pattern_that_loses_text_never_ends_or_is_none(pattern: str) -> None:
    one_line("split pattern", lambda: read_encoding(pickled({**GOOD, "pat_str": pattern})))


@pytest.mark.parametrize(
    "pattern",
    [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"[\s\S]+",
    ],
)
def test_the_patterns_of_nanochat_and_gpt_are_taken(pattern: str) -> None:
    assert read_encoding(pickled({**GOOD, "pat_str": pattern})).decode([104, 105]) == "hi"


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]r\xff\xff\xff\x3f.",  # remember the list under number 2**30
        b"\x80\x02]p1073741823\n.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes of 2**63 - 1
        b"\x80\x05\x96\xff\xff\xff\xff\x0f\x00\x00\x00.",  # a bytearray of 64 GB
        b"\x80\x04" + b"(" * 100_000 + b".",
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
)
def test_a_pickle_that_asks_for_all_memory(data: bytes) -> None:
    one_line("tokenizer", lambda: read_encoding(data))


def test_a_text_the_pattern_gives_up_on_is_one_line() -> None:
    # Harmless to the probe, beyond tiktoken's own limit of backtracking on another text.
    pattern = r"(?:z|zz)+(?!z)c|[\s\S]"
    tok = Tokenizer(read_encoding(pickled({**GOOD, "pat_str": pattern})))
    assert tok.encode("abc") == [97, 98, 99]
    one_line("can't encode a text of 3,000 characters", lambda: tok.encode("z" * 3000))


def test_the_small_encoding_still_reads() -> None:
    assert read_encoding(pickle.dumps(small_encoding())).n_vocab == 266
