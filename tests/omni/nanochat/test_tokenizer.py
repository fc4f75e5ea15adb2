"""The tokenizer file: nanochat's layout both ways, and pickles that must not run."""

import os
import pickle
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from nanochat_kit import small_encoding

from omni.errors import OmniError
from omni.nanochat.tokenizer import ByteTokenizer, Tokenizer, read_encoding


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_nanochats_pickle_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    encoding = small_encoding()
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(encoding, protocol=protocol))
    for path in (tmp_path, tmp_path / "tokenizer.pkl"):
        tokenizer = Tokenizer.load(path)
        assert tokenizer.vocab_size == 266
        assert tokenizer.encode("hehe é") == encoding.encode_ordinary("hehe é")
        assert tokenizer.special("bos") == 257
        assert tokenizer.special("output_end") == 265


def test_what_we_save_is_what_nanochat_unpickles(tmp_path: Path) -> None:
    Tokenizer(small_encoding()).save(tmp_path / "tokenizer")
    encoding = pickle.loads((tmp_path / "tokenizer" / "tokenizer.pkl").read_bytes())
    assert isinstance(encoding, tiktoken.Encoding)
    assert encoding.encode_single_token("<|assistant_end|>") == 261
    assert encoding.decode(encoding.encode_ordinary("hello")) == "hello"


class Exploit:
    """Pickles to a call that leaves a mark on the disk."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def test_a_pickle_with_code_is_refused_before_it_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = tmp_path / "tokenizer.pkl"
    hidden = {"name": "x", "pat_str": ".", "mergeable_ranks": Exploit(mark), "special_tokens": {}}
    for payload in (Exploit(mark), [Exploit(mark)], hidden):
        file.write_bytes(pickle.dumps(payload))
        with pytest.raises(OmniError, match=r"posix\.mkdir.*not loaded") as caught:
            Tokenizer.load(file)
        assert str(file) in str(caught.value)
        assert not mark.exists()


def test_the_bytes_helper_takes_no_other_codec() -> None:
    data = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R."
    with pytest.raises(OmniError, match="codec hex"):
        read_encoding(data)


@pytest.mark.parametrize(
    "payload",
    [b"", b"no pickle", pickle.dumps(small_encoding())[:-700], pickle.dumps({"a": 1})],
    ids=["empty", "text", "truncated", "other object"],
)
def test_damaged_or_other_files_give_one_line(tmp_path: Path, payload: bytes) -> None:
    file = tmp_path / "tokenizer.pkl"
    file.write_bytes(payload)
    with pytest.raises(OmniError, match="tokenizer") as caught:
        Tokenizer.load(file)
    assert "\n" not in str(caught.value)


def test_a_registered_encoding_by_name_is_refused() -> None:
    # State is a bare name: tiktoken itself would go to the network for it.
    by_name = b"\x80\x04ctiktoken.core\nEncoding\n)\x81\x8c\x04gpt2b."
    with pytest.raises(OmniError, match="whole tiktoken encoding"):
        read_encoding(by_name)


def test_missing_file_and_missing_specials_are_named(tmp_path: Path) -> None:
    with pytest.raises(OmniError, match=r"no tokenizer .*tokenizer\.pkl"):
        Tokenizer.load(tmp_path)
    with pytest.raises(OmniError, match=r"no <\|user_start\|>"):
        ByteTokenizer().special("user_start")
    with pytest.raises(OmniError, match="outside a vocabulary of 257"):
        ByteTokenizer().decode([257])


@given(st.text())
def test_byte_tokenizer_is_utf8_and_loses_nothing(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text) == list(text.encode("utf-8"))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (tokenizer.vocab_size, tokenizer.special("bos")) == (257, 256)
