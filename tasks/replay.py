"""Chats without audio, so that what the LM could say before is not forgotten: read from JSONL.

A line is a conversation as nanochat stores one: a list of messages, or an object with such a list under
`messages`. Must not know utterances.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from omni.errors import OmniError
from omni.formats.tasks import Input

_MEND = "a line is a list of messages {role, content}, user and assistant in turns"


class Message(TypedDict):
    """One turn."""

    role: str
    content: str


class Exchange(NamedTuple):
    """What a user said first, and what was answered."""

    prompt: str
    answer: str


def read_chats(path: Path) -> tuple[list[Exchange], Input]:
    """The first exchange of each conversation; a system message goes in front of it, as nanochat
    puts it. Later ones depend on what came before them and are left out.

    Raises:
        OmniError: no such file; a line that is no conversation (it names the line); none at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OmniError(f"chats can't be read ({error.strerror})", str(path)) from error
    found: dict[Exchange, None] = {}  # in order, each once
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            found[_exchange(line, f"{path}, line {number}")] = None
    if not found:
        raise OmniError("no conversation in it", str(path), _MEND)
    record: Input = {
        "name": path.name,
        "n": len(found),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return list(found), record


_LIST = TypeAdapter(list[Message])


def _exchange(line: bytes, where: str) -> Exchange:
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            value = value.get("messages")
        messages = _LIST.validate_python(value, strict=True)
    except (ValueError, RecursionError, ValidationError) as error:
        raise OmniError("no conversation", where, _MEND) from error
    system = ""
    if messages and messages[0]["role"] == "system":
        system, messages = messages[0]["content"] + "\n\n", messages[1:]
    if [message["role"] for message in messages[:2]] != ["user", "assistant"]:
        raise OmniError("a conversation begins with a user and an assistant", where, _MEND)
    prompt, answer = system + messages[0]["content"].strip(), messages[1]["content"].strip()
    if not prompt or not answer:
        raise OmniError("an empty message", where, _MEND)
    return Exchange(prompt, answer)
