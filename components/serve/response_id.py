"""Ids of answers that only the gateway can make, so that feedback needs nothing but the id.

An id has 96 random bits and a MAC over them, its prefix, the client and the workload, whose name
follows in clear. Whoever sends feedback proves by it that the gateway gave this client this answer.
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

from components.store import manifest
from components.store.shared_files import DamagedObjectError, SharedFiles, StoreError

KEY_FILE = "response.key"  # in the home's folder `keys`

SHARED_KEY = "gateways/response.key"  # of all gateways that share an object store, in hex

Prefix: TypeAlias = Literal["chatcmpl-", "cmpl-", "resp_"]

_PREFIXES: tuple[Prefix, ...] = ("chatcmpl-", "cmpl-", "resp_")
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


def share_key(folder: Path, store: SharedFiles) -> None:
    """Replace the installation's key by that of all gateways of a store: the first one's.

    Answers of one gateway can then be judged at another, and a canary draws a conversation alike at
    all of them. Later starts do without a store that is away.

    Raises:
        ResponseKeyError: The store's key is not one.
        StoreError: The store can't be reached, and the key was never shared.
    """
    own, marker = read_key(folder), folder / f"{KEY_FILE}.shared"
    try:
        with store.reaching(f"sharing the gateways' key in {store.url}/{SHARED_KEY}"):
            text = store.create(SHARED_KEY, own.hex())
    except DamagedObjectError:
        text = ""
    except StoreError as error:
        if marker.exists() and marker.read_text() == store.url:
            return
        raise StoreError(f"{error}; the first start of a gateway needs the store") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ResponseKeyError(
            f"reading {store.url}/{SHARED_KEY}: expected {_KEY_BYTES} bytes in hex; write the "
            f"content of another gateway's {folder / KEY_FILE} there, in hex"
        )
    if key != own:
        partial = folder / f"{KEY_FILE}.partial"
        partial.unlink(missing_ok=True)
        _write(partial, key)
        partial.replace(folder / KEY_FILE)
    manifest.write_atomically(marker, store.url)


def create(key: bytes, client_id: str, workload: str, prefix: Prefix, *, is_stored: bool) -> str:
    """Return the id of a new answer."""
    random = os.urandom(_RANDOM_BYTES)
    tag = _mac(key, random, prefix, client_id, workload, is_stored=is_stored)
    text = base64.b64encode(random + tag, _SIGNS)[:_CHARACTERS].decode()
    return f"{prefix}{text}-{quote(workload, safe='')}"


def short(response_id: str) -> str:
    """Return the part of an answer's id that no other answer's id has."""
    prefix = next(known for known in _PREFIXES if response_id.startswith(known))
    return response_id.removeprefix(prefix)[:_CHARACTERS]


def verify(key: bytes, client_id: str, response_id: str) -> KnownResponse | None:
    """Return what an id proves; ``None`` if it is foreign, invented or another client's."""
    prefix: Prefix | None = next((p for p in _PREFIXES if response_id.startswith(p)), None)
    rest = response_id.removeprefix(prefix or "")
    text, _, name = rest.partition("-")
    if prefix is None or len(text) != _CHARACTERS or not name or not rest.isascii():
        return None
    try:
        content = base64.b64decode(f"{text}=", _SIGNS, validate=True)
        workload = unquote(name, errors="strict")
    except ValueError:
        return None
    random, tag = content[:_RANDOM_BYTES], content[_RANDOM_BYTES:]
    if base64.b64encode(content, _SIGNS)[:_CHARACTERS].decode() != text:
        return None  # the last character has bits to spare: an answer has one id only
    if quote(workload, safe="") != name:
        return None  # another spelling of the name
    for is_stored in (True, False):
        mac = _mac(key, random, prefix, client_id, workload, is_stored=is_stored)
        if hmac.compare_digest(tag, mac):
            return KnownResponse(workload, is_stored)
    return None


def _mac(
    key: bytes, random: bytes, prefix: Prefix, client_id: str, workload: str, *, is_stored: bool
) -> bytes:
    # Lengths first, so that no two lists of parts are the same bytes.
    parts = prefix.encode(), client_id.encode(), workload.encode()
    lengths = b"".join(len(part).to_bytes(4) for part in parts)
    content = random + bytes([is_stored]) + lengths + b"".join(parts)
    return blake2b(content, key=key, digest_size=_MAC_BYTES).digest()


def _create(path: Path) -> bytes:
    """Write a new key, unless another gateway of this home does at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_bytes(_KEY_BYTES)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    _write(partial, key)
    try:
        os.link(partial, path)
    except FileExistsError:
        return path.read_bytes()
    finally:
        partial.unlink()
    return key


def _write(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, key)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
