"""Ids of answers that only the gateway can make, so that feedback needs nothing but the id.

An id has 96 random bits and a MAC over them, the client and the workload, whose name follows in
clear. Whoever sends feedback proves by it that the gateway gave this client this answer.
"""

import base64
import hmac
import os
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import quote, unquote

KEY_FILE = "response.key"  # in the home's folder `keys`

Prefix: TypeAlias = Literal["chatcmpl", "cmpl"]

_PREFIXES: tuple[Prefix, ...] = ("chatcmpl", "cmpl")
_KEY_BYTES, _RANDOM_BYTES, _MAC_BYTES = 32, 12, 8
_CHARACTERS = 27  # of Base64, without its padding
_SIGNS = b"._"  # instead of + and /


class ResponseKeyError(ValueError):
    """Raised when the file of the key is not one."""


@dataclass(frozen=True, slots=True)
class KnownResponse:
    """What an id proves: the workload, and whether the answer was logged."""

    workload: str
    is_stored: bool


def read_key(folder: Path) -> bytes:
    """Return the installation's key, made at its first use; gateways of one home share it.

    Raises:
        ResponseKeyError: The file has been changed.
    """
    path = folder / KEY_FILE
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = _create(path)
    if len(key) != _KEY_BYTES:
        raise ResponseKeyError(
            f"reading {path}: it has {len(key)} bytes, expected {_KEY_BYTES}; restore it from the "
            "backup, or delete it: then feedback to earlier answers is refused"
        )
    return key


def create(key: bytes, client_id: str, workload: str, prefix: Prefix, *, is_stored: bool) -> str:
    """Return the id of a new answer."""
    random = os.urandom(_RANDOM_BYTES)
    tag = _mac(key, random, client_id, workload, is_stored=is_stored)
    text = base64.b64encode(random + tag, _SIGNS)[:_CHARACTERS].decode()
    return f"{prefix}-{text}-{quote(workload, safe='')}"


def verify(key: bytes, client_id: str, response_id: str) -> KnownResponse | None:
    """Return what an id proves; ``None`` if it is foreign, invented or another client's."""
    prefix, _, rest = response_id.partition("-")
    text, _, name = rest.partition("-")
    if prefix not in _PREFIXES or len(text) != _CHARACTERS or not name or not rest.isascii():
        return None
    try:
        content = base64.b64decode(f"{text}=", _SIGNS, validate=True)
        workload = unquote(name, errors="strict")
    except ValueError:
        return None
    random, tag = content[:_RANDOM_BYTES], content[_RANDOM_BYTES:]
    if base64.b64encode(content, _SIGNS)[:_CHARACTERS].decode() != text:
        return None  # the last character has bits to spare: an answer has one id only
    for is_stored in (True, False):
        if hmac.compare_digest(tag, _mac(key, random, client_id, workload, is_stored=is_stored)):
            return KnownResponse(workload, is_stored)
    return None


def _mac(key: bytes, random: bytes, client_id: str, workload: str, *, is_stored: bool) -> bytes:
    # Lengths first, so that no two pairs of client and workload are the same bytes.
    parts = client_id.encode(), workload.encode()
    lengths = b"".join(len(part).to_bytes(4) for part in parts)
    content = random + bytes([is_stored]) + lengths + b"".join(parts)
    return blake2b(content, key=key, digest_size=_MAC_BYTES).digest()


def _create(path: Path) -> bytes:
    """Write a new key, unless another gateway of this home does at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_bytes(_KEY_BYTES)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(partial, path)
    except FileExistsError:
        return path.read_bytes()
    finally:
        partial.unlink()
    return key
