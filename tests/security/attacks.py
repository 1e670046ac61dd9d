"""Rows of a wanted size that are made to be slow: the worst that is known for each expression."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from components.curate.candidate import Row
from components.schema import Json
from tests import logs
from tests.curate.rows import row

DEEP = 400


def repeated(text: str, size: int) -> str:
    """Repeat a text up to a size."""
    return text * (size // len(text))


def numbered(form: str, size: int, first: int = 0) -> str:
    """Write different values, a space between them, up to a size."""
    count = size // (len(form % first) + 1)
    return " ".join(form % (first + n) for n in range(count))


def answered(text: str) -> Row:
    """Put a text where no bound on prompts counts it."""
    return row(tools=[], message=logs.say(text))


def _cards(size: int) -> Row:
    return answered(repeated("4111 1111 1111 1111 ", size))


def _named(size: int) -> Row:
    messages: Json = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": repeated("your name ", size)},
        {"role": "user", "content": "John Smith"},
    ]
    return row(messages=messages, tools=[], message=logs.say("Yes."))


def _marks(size: int) -> Row:
    marks = "\u0301" * (size // 4) + "\u0323" * (size // 4)
    return row(messages=[{"role": "user", "content": "a" + marks}], tools=[], message=logs.say("x"))


def _quoted(size: int) -> Row:
    values = " ".join(f"ann{n}@acme.org" for n in range(500))
    corrected = row(
        messages=[{"role": "user", "content": values}],
        tools=[],
        message=logs.say(repeated("<EMAIL_500> ", size)),
        is_corrected=True,
    )
    return replace(corrected, logged_message=json.dumps(logs.say("x")))


def _arguments(size: int) -> Row:
    zeros: list[Json] = [0] * (size // 3)
    arguments: Json = {"city": zeros}
    return row(message=logs.call("weather", arguments))


def _keys(size: int) -> Row:
    return row(message=logs.call("weather", {f"key {n}": n for n in range(size // 18)}))


def _shown(size: int) -> Row:
    tool = {**logs.WEATHER["function"], "description": numbered("u%07d@acme.org", size)}  # type: ignore[dict-item]
    return row(tools=[{"type": "function", "function": tool}])


ROWS: Mapping[str, Callable[[int], Row]] = {
    "digits with blanks": lambda size: answered(repeated("1 ", size)),
    "groups of digits": lambda size: answered(repeated("4444 ", size)),
    "one long number": lambda size: answered("1" * size),
    "cards in a row": _cards,
    "many addresses": lambda size: answered(numbered("u%07d@acme.org", size)),
    "many phones": lambda size: answered(numbered("+1 415 %07d", size, 2_000_000)),
    "many secrets": lambda size: answered(numbered("sk-live-9aZ%013dx", size)),
    "known values in many texts": lambda size: answered(
        numbered("u%07d@acme.org", size // 2) + json.dumps(["word"] * (size // 16))
    ),
    "punctuation": lambda size: answered("!" * size + "a1b2c3d4e5f6g7h8i9j0"),
    "prefixes of keys": lambda size: answered(repeated("sk-", size) + "a" * 20),
    "beginnings of keys": lambda size: answered(repeated("-----BEGIN PRIVATE KEY-----", size)),
    "words with dots": lambda size: answered(repeated("A.", size) + " Xweg 1"),
    "labels of a domain": lambda size: answered("x" * 64 + "@" + repeated("a.", size)),
    "questions for a name": _named,
    "marks on a letter": _marks,
    "placeholders in a correction": _quoted,
    "one word": lambda size: answered(repeated("a ", size)),
    "one letter": lambda size: answered("a" * size),
    "a list of numbers": _arguments,
    "an object of many keys": _keys,
    "addresses in a tool": _shown,
    "braces": lambda size: answered("{" * size),
    "brackets": lambda size: answered("[" * DEEP + "1, " * (size // 3)),
}
"""By what is in them; each takes the size of its text in characters."""


def _packed(content: bytes) -> dict[str, object]:
    return {"content": content, "headers": {"content-encoding": "gzip"}}


def _empty_members(size: int) -> dict[str, object]:
    member = gzip.compress(b"")
    return _packed(member * (size // len(member)))


REQUESTS: Mapping[str, Callable[[int], dict[str, object]]] = {
    "gzip of empty members": _empty_members,
    "gzip of zeros": lambda size: _packed(gzip.compress(b"0" * size)),
    "an array of arrays": lambda size: {"content": b"[" + b"[]," * (size // 3) + b"[]]"},
    "an array of objects": lambda size: {"content": b"[" + b"{}," * (size // 3) + b"{}]"},
    "keys": lambda size: {
        "content": b"{" + b",".join(b'"%08d":1' % n for n in range(size // 12)) + b"}"
    },
    "nested arrays": lambda size: {"content": b"[" * size},
    "many lines": lambda size: {"content": b"1\n" * (size // 2)},
    "one text": lambda size: {"content": b'"' + b"a" * size + b'"'},
}
"""By what is in them; each takes the size of its body in bytes, and gives what httpx sends."""
