"""nanochat's tokenizer: a `tiktoken.Encoding` read from `tokenizer.pkl` without running its pickle.

Knows the nine special tokens and their names; must not know the model, nor how a row is laid out.
"""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import regex
import tiktoken

from omni.errors import OmniError

FILE_NAME = "tokenizer.pkl"

# The order is the order of their ids, which are the last of the vocabulary.
SPECIAL_NAMES = (
    "bos",
    "user_start",
    "user_end",
    "assistant_start",
    "assistant_end",
    "python_start",
    "python_end",
    "output_start",
    "output_end",
)

LONGEST_PATTERN = 2000  # characters; nanochat's has 131
# What a split pattern must cut into pieces without loss, quickly: every kind of character it names.
_PROBE = (
    "He's 12,345 caf\u00e9s \u2014 DON'T  stop!\r\n\n\t\u4f60\u597d \U0001f600\x00 "
    + "aA1 !" * 8
    + "a" * 64
)
_PROBE_SECONDS = 1.0

_Key = TypeVar("_Key", bytes, str)


class Tokenizer:
    """Text to token ids and back, with special tokens asked for by name.

    Args:
        encoding: the byte-pair encoding itself; must hold `<|bos|>`.

    Raises:
        OmniError: the encoding has no `<|bos|>`, so no row could be opened with it.
    """

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding
        self._specials = dict(encoding._special_tokens)
        if not self.has_special("bos"):
            raise OmniError(
                "the tokenizer has no <|bos|> token",
                where=encoding.name,
                mend="use the tokenizer.pkl that nanochat wrote beside the checkpoint",
            )

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read `tokenizer.pkl` (or the folder that holds it).

        Raises:
            OmniError: no such file, or a pickle that names anything but `tiktoken.core.Encoding`.
        """
        file = Path(path)
        if file.is_dir():
            file = file / FILE_NAME
        if not file.is_file():
            raise OmniError(
                "no tokenizer", where=str(file), mend=f"copy nanochat's {FILE_NAME} there"
            )
        try:
            data = file.read_bytes()
        except OSError as error:
            raise OmniError(f"can't read ({error.strerror or error})", str(file)) from error
        return cls(read_encoding(data, where=str(file)))

    def save(self, folder: str | Path) -> Path:
        """Write `folder/tokenizer.pkl` as nanochat does: the pickled `tiktoken.Encoding`."""
        file = Path(folder) / FILE_NAME
        file.parent.mkdir(parents=True, exist_ok=True)
        # Protocol 4 by name: the bytes then don't depend on the Python that wrote them.
        file.write_bytes(pickle.dumps(self._encoding, protocol=4))
        return file

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; no bos is added, and special tokens spelled in it are plain text.

        Raises:
            OmniError: the tokenizer's split pattern gives up on this text.
        """
        try:
            return self._encoding.encode_ordinary(text)
        except BaseException as error:  # a panic of tiktoken's own is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise OmniError(
                f"the tokenizer can't encode a text of {len(text):,} characters ({error})",
                self._encoding.name[:100],
                "use the tokenizer.pkl that nanochat's tok_train wrote",
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD.

        Raises:
            OmniError: an id outside the vocabulary.
        """
        ids = list(ids)
        outside = [i for i in ids if not 0 <= i < self.vocab_size]
        if outside:
            raise OmniError(f"token id {outside[0]} is outside a vocabulary of {self.vocab_size:,}")
        return self._encoding.decode(ids)

    def has_special(self, name: str) -> bool:
        """Whether the encoding holds `<|name|>`."""
        return f"<|{name}|>" in self._specials

    def special(self, name: str) -> int:
        """Id of `<|name|>`.

        Raises:
            OmniError: the encoding does not hold it.
        """
        if not self.has_special(name):
            raise OmniError(
                f"the tokenizer has no <|{name}|> token",
                where=", ".join(sorted(self._specials)),
                mend="use a nanochat tokenizer with chat tokens, or a base checkpoint",
            )
        return self._specials[f"<|{name}|>"]


class ByteTokenizer(Tokenizer):
    """256 bytes and `<|bos|>` (id 256): needs no training, for smoke tests and random models."""

    def __init__(self) -> None:
        super().__init__(
            tiktoken.Encoding(
                name="bytes",
                pat_str=r"[\s\S]",
                mergeable_ranks={bytes([value]): value for value in range(256)},
                special_tokens={"<|bos|>": 256},
            )
        )


def read_encoding(data: bytes, where: str = "") -> tiktoken.Encoding:
    """A `tiktoken.Encoding` from its pickle, with nothing in the pickle able to run.

    The unpickler maps the class to a plain record; the encoding is built here from the record,
    after its fields were checked. A pickle that refers to a registered encoding by name alone is
    refused too: tiktoken would fetch it from the network.

    Raises:
        OmniError: damaged, or it refers to anything but `tiktoken.core.Encoding`.
    """
    try:
        record = _EncodingUnpickler(io.BytesIO(data)).load()
    except OmniError as error:
        raise OmniError(error.what, where=where, mend=error.mend) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise OmniError(
            f"the tokenizer file is damaged or no pickle ({type(error).__name__}: {error})",
            where=where,
            mend="copy it again",
        ) from error
    if not isinstance(record, _EncodingRecord) or not isinstance(record.state, dict):
        raise OmniError(
            "the tokenizer file does not hold a whole tiktoken encoding",
            where=where,
            mend="use the tokenizer.pkl that nanochat's tok_train wrote",
        )
    return _build(record.state, where)


class _EncodingRecord:
    """Stands for the pickled `tiktoken.Encoding`: keeps its state and does nothing else."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _latin1_bytes(text: str, codec: str) -> bytes:
    """What pickle protocol 2 calls to rebuild a bytes object; any other codec is refused."""
    if codec != "latin1":
        raise pickle.UnpicklingError(f"codec {codec}")
    return text.encode("latin1")


class _EncodingUnpickler(pickle._Unpickler):
    """Admits the one class of a nanochat tokenizer, and the bytes helper of protocol 2.

    The unpickler written in Python: the one in C keeps what it has read in an array as long as the
    largest number that the file names, which takes a file of ten bytes to all memory there is.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for an admitted global; every other one is refused before it is imported."""
        if (module, name) == ("tiktoken.core", "Encoding"):
            return _EncodingRecord
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        raise OmniError(
            f"the tokenizer pickle refers to {module}.{name}, which could run code; not loaded",
            mend="take the tokenizer from a source you trust",
        )


def _build(state: dict[str, Any], where: str) -> tiktoken.Encoding:
    """The encoding of a checked state (name, pat_str, mergeable_ranks, special_tokens)."""
    mend = "use the tokenizer.pkl that nanochat's tok_train wrote"
    ranks = _ids_by(bytes, state.get("mergeable_ranks"))
    specials = _ids_by(str, state.get("special_tokens"))
    ids = sorted([*(ranks or {}).values(), *(specials or {}).values()])
    if not ranks or specials is None or ids != list(range(len(ids))):
        raise OmniError(
            "the tokenizer file lacks a part of a tiktoken encoding, or its ids have gaps or repeat",
            where=where,
            mend=mend,
        )
    if any(bytes([value]) not in ranks for value in range(256)):
        raise OmniError("the tokenizer's ranks lack single bytes", where=where, mend=mend)
    name, pattern = state.get("name"), state.get("pat_str")
    if not isinstance(name, str) or not isinstance(pattern, str):
        raise OmniError("the tokenizer's name or split pattern is no text", where=where, mend=mend)
    _check_pattern(pattern, where, mend)
    try:
        return tiktoken.Encoding(
            name=name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials
        )
    except ValueError as error:
        raise OmniError(
            f"the tokenizer's split pattern or ranks are not usable ({error})", where, mend
        ) from error


def _check_pattern(pattern: str, where: str, mend: str) -> None:
    """Refuse a split pattern that can't be compiled, runs for ever, or loses a part of a text.

    Asked of `regex`, which takes the same patterns and a time limit: tiktoken would panic.
    """
    fault = ""
    if len(pattern) > LONGEST_PATTERN:
        fault = f"has {len(pattern):,} characters"
    else:
        try:
            found = regex.finditer(pattern, _PROBE, timeout=_PROBE_SECONDS)
            pieces = [match.group() for match in found]
            if "".join(pieces) != _PROBE or "" in pieces:
                fault = "loses a part of a text"
        except TimeoutError:
            fault = "takes for ever"
        except Exception as error:  # of its syntax, or too many repetitions
            fault = f"is not usable ({error})"
    if fault:
        raise OmniError(f"the tokenizer's split pattern {fault}", where, mend)


def _ids_by(kind: type[_Key], table: Any) -> dict[_Key, int] | None:
    """`table` if it maps keys of that kind to ints."""
    if not isinstance(table, dict):
        return None
    sound = all(isinstance(k, kind) and type(v) is int for k, v in table.items())
    return table if sound else None
