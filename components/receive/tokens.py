"""Who may send: one bearer token or more for each client, kept as hashes in one JSON file.

A token is ``fw_<id>_<secret>``. The secret has 256 random bits, so a plain SHA-256 of it is as good
as a slow hash; the file tells nobody the token.
"""

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

_PREFIX = "fw"
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class TokenError(ValueError):
    """A token that can't be added or removed."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; ``id`` is its middle part, ``sha256`` the hash of its secret."""

    id: str
    client_id: str
    sha256: str
    created_at: str


def add(file: Path, client_id: str, *, now: datetime) -> str:
    """Make a token for a client and return it: this is the only time that it can be read.

    Raises:
        TokenError: The client's name is empty, or has white space around it.
    """
    if not client_id or client_id != client_id.strip():
        raise TokenError(f"adding a token: the client is {client_id!r}, wants a name")
    secret = secrets.token_urlsafe(32)
    created_at = now.isoformat(timespec="seconds")
    token = Token(secrets.token_hex(4), client_id, _hash(secret), created_at)
    _write(file, [*read(file), token])
    return f"{_PREFIX}_{token.id}_{secret}"


def remove(file: Path, token_id: str) -> Token:
    """Take a token's rights away; a running receiver knows it at its next request.

    Raises:
        TokenError: There is none with this id.
    """
    tokens = read(file)
    found = [token for token in tokens if token.id == token_id]
    if not found:
        known = ", ".join(token.id for token in tokens) or "none"
        raise TokenError(f"removing token {token_id}: there is no such id; known: {known}")
    _write(file, [token for token in tokens if token.id != token_id])
    return found[0]


def read(file: Path) -> list[Token]:
    """Read all tokens; none where the file does not exist."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return [Token(**token) for token in json.loads(text)]


class Keyring:
    """Tells the owner of a token; reads the file again whenever it was replaced."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version: tuple[int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def owner(self, authorization: str | None) -> str | None:
        """Give the client whose token an ``Authorization`` header carries; ``None`` is nobody."""
        self._refresh()
        scheme, _, credentials = (authorization or "").partition(" ")
        prefix, _, rest = credentials.strip().partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._tokens.get(token_id)
        expected = token.sha256 if token else _NOBODY
        is_right = hmac.compare_digest(_hash(secret), expected)
        if scheme.lower() != "bearer" or prefix != _PREFIX or token is None or not is_right:
            return None
        return token.client_id

    def _refresh(self) -> None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._version, self._tokens = None, {}
            return
        version = (found.st_ino, found.st_mtime_ns)
        if version != self._version:
            self._tokens = {token.id: token for token in read(self._file)}
            self._version = version


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _write(file: Path, tokens: list[Token]) -> None:
    """Replace the file, readable by its owner only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as written:
        json.dump([asdict(token) for token in tokens], written, indent=2)
        written.flush()
        os.fsync(written.fileno())
    partial.replace(file)
