"""Clients' bearer tokens, stored as hashes in one JSON file, and their quotas."""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from math import ceil
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import AwareDatetime, Field, ValidationError

from components.receive.settings import RefusedError
from components.schema import Config
from components.store import file_locks
from components.store.spool import Kind

Period: TypeAlias = Literal["minute", "hour", "day"]

RECORDS: tuple[Kind, ...] = ("interactions", "feedback")
"""Kinds whose records name their workload, so that the receiver can check it."""

KINDS: tuple[Kind, ...] = (*RECORDS, "traces", "logs")
EVERY_WORKLOAD = ("*",)

SECONDS: dict[Period, int] = {"minute": 60, "hour": 3600, "day": 86_400}

_PREFIX = "fw"
_SPAN = re.compile(r"(\d{1,6})([dh])")
_UNITS = {"d": "days", "h": "hours"}
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class TokenError(ValueError):
    """Raised when a token can't be added or removed, or the file of tokens can't be read."""


class Quota(Config):
    """How much a token may send per minute, hour or day (UTC); ``None`` is unlimited."""

    requests: int | None = Field(default=None, ge=1)
    """Requests, including those refused later; more are answered with 429."""

    bytes: int | None = Field(default=None, ge=1)
    """Unpacked bytes of stored bodies; more are answered with 429."""

    per: Period = "day"
    """The period after which the counts restart: each minute, hour or day of UTC."""

    def __str__(self) -> str:
        limits = ((self.requests, "requests"), (self.bytes, "bytes"))
        parts = [f"{most:,} {unit}" for most, unit in limits if most is not None]
        return f"{', '.join(parts)} a {self.per}"


class Token(Config):
    """A token's record; ``id`` is its middle part, ``sha256`` the hash of its secret."""

    id: str
    client_id: str
    sha256: str
    created_at: str

    workloads: tuple[str, ...] = EVERY_WORKLOAD
    """Glob patterns (``support*``); records of other workloads are answered with 403."""

    kinds: tuple[Kind, ...] = KINDS
    """Accepted kinds; other kinds are answered with 403."""

    expires_at: AwareDatetime | None = None
    """When the token expires and is answered with 401; never if unset."""

    quota: Quota | None = None
    """How much it may send; unlimited if unset."""

    @property
    def has_every_workload(self) -> bool:
        """Whether it may send for all workloads."""
        return "*" in self.workloads

    def may_send_for(self, workload_id: object) -> bool:
        """Return whether a record may name this workload."""
        return isinstance(workload_id, str) and any(
            fnmatchcase(workload_id, pattern) for pattern in self.workloads
        )

    def require(self, kind: Kind, *, now: datetime) -> None:
        """Refuse a token that has expired at ``now`` (401), or is not for this kind (403)."""
        if self.expires_at is not None and now >= self.expires_at:
            expired = self.expires_at.isoformat(timespec="seconds")
            raise RefusedError(401, f"the token {self.id} expired at {expired}; ask for a new one")
        if kind not in self.kinds:
            raise RefusedError(
                403, f"the token {self.id} may send {', '.join(self.kinds)}, not {kind}"
            )


def add_token(
    file: Path,
    client_id: str,
    *,
    now: datetime,
    workloads: Sequence[str] = EVERY_WORKLOAD,
    kinds: Sequence[Kind] | None = None,
    expires_at: datetime | None = None,
    quota: Quota | None = None,
) -> str:
    """Add a token for a client and return it; only its hash is stored, so it can't be read again.

    ``workloads`` are glob patterns. ``kinds`` of ``None`` are all, or only ``RECORDS`` if
    ``workloads`` limits it. The other options are the fields of ``Token``.

    Raises:
        TokenError: The client's name is empty or has white space around it, a pattern is empty, it
            has already expired, or telemetry is to be limited to workloads.
    """
    if not client_id or client_id != client_id.strip():
        raise TokenError(f"adding a token: the client is {client_id!r}, expected a name")
    if not workloads or not all(workloads):
        raise TokenError("adding a token: a pattern of workloads is empty, expected a name or '*'")
    if expires_at is not None and expires_at <= now:
        expired = expires_at.isoformat(timespec="seconds")
        raise TokenError(f"adding a token: it would have expired at {expired}, before now")
    default = KINDS if "*" in workloads else RECORDS
    secret = secrets.token_urlsafe(32)
    token = Token(
        id=secrets.token_hex(4),
        client_id=client_id,
        sha256=_hash(secret),
        created_at=now.isoformat(timespec="seconds"),
        workloads=tuple(workloads),
        kinds=default if kinds is None else tuple(kind for kind in KINDS if kind in kinds),
        expires_at=expires_at,
        quota=quota,
    )
    telemetry = [kind for kind in token.kinds if kind not in RECORDS]
    if telemetry and not token.has_every_workload:
        raise TokenError(
            f"adding a token: {' and '.join(telemetry)} can't be limited to workloads, as a call "
            "is put together from several requests only by `flywheel collect`; send interactions "
            "and feedback with this token, and telemetry as a client of its own"
        )
    with locked(file):
        write(file, [*read_tokens(file), token])
    return f"{_PREFIX}_{token.id}_{secret}"


def remove_token(file: Path, token_id: str) -> Token:
    """Remove a token and return its record; a running receiver applies it at the next request."""
    with locked(file):
        tokens = read_tokens(file)
        removed = [token for token in tokens if token.id == token_id]
        if not removed:
            known = ", ".join(token.id for token in tokens) or "none"
            raise TokenError(f"removing token {token_id}: there is no such id; known: {known}")
        write(file, [token for token in tokens if token.id != token_id])
    return removed[0]


def read_tokens(file: Path) -> list[Token]:
    """Return all tokens; an empty list if the file does not exist."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    try:
        return [Token.model_validate(token) for token in json.loads(text)]
    except (ValidationError, ValueError, TypeError) as error:
        raise TokenError(f"reading {file}: it is not a list of tokens: {error}") from error


def parse_expiry(text: str, *, now: datetime) -> datetime:
    """Return the expiry in a text: an ISO 8601 date or time, or days or hours from ``now``."""
    try:
        if span := _SPAN.fullmatch(text):
            return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise TokenError(
            f"reading {text!r}: expected a date such as 2027-01-31, or a time from now such as 90d "
            "or 12h"
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class TokenFile:
    """Finds a request's token; reloads the file whenever it is replaced."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version: tuple[int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def find(self, authorization: str | None) -> Token | None:
        """Return the token of an ``Authorization`` header; ``None`` if it is missing or unknown."""
        self._refresh()
        scheme, _, credentials = (authorization or "").partition(" ")
        prefix, _, rest = credentials.strip().partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._tokens.get(token_id)
        expected = token.sha256 if token else _NOBODY
        is_valid = hmac.compare_digest(_hash(secret), expected)
        if scheme.lower() != "bearer" or prefix != _PREFIX or token is None or not is_valid:
            return None
        return token

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._version, self._tokens = None, {}
            return
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._version:
            self._tokens = {token.id: token for token in read_tokens(self._file)}
            self._version = version


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def locked(file: Path) -> AbstractContextManager[bool]:
    """Keep others from changing the file of tokens."""
    # The lock is a file of its own, because the tokens' file is replaced.
    return file_locks.held(file.with_name(f"{file.name}.lock"), mode=0o600)


def write(file: Path, tokens: list[Token]) -> None:
    """Replace the file atomically, readable by its owner only."""
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as written:
        records = [token.model_dump(mode="json", exclude_defaults=True) for token in tokens]
        json.dump(records, written, indent=2)
        written.flush()
        os.fsync(written.fileno())
    partial.replace(file)


@dataclass(slots=True)
class _Usage:
    period: int  # counted from 1970
    requests: int = 0
    bytes: int = 0


class Quotas:
    """Counts what each token of a receiver sent."""

    def __init__(self) -> None:
        self._usage: dict[str, _Usage] = {}

    def count_request(self, token: Token, now: float) -> None:
        """Count a request; refuse it (429) if none or no bytes are left. ``now``: unix seconds."""
        if (quota := token.quota) is None:
            return
        usage = self._usage_now(token.id, quota, now)
        if quota.requests is not None and usage.requests >= quota.requests:
            raise _exceeded(token, quota, now, f"{usage.requests:,} requests")
        if quota.bytes is not None and usage.bytes >= quota.bytes:
            raise _exceeded(token, quota, now, f"{usage.bytes:,} bytes")
        usage.requests += 1

    def count_bytes(self, token: Token, size: int, now: float) -> None:
        """Count a body before it is stored; refuse what exceeds the rest (429) or quota (413)."""
        if (quota := token.quota) is None or quota.bytes is None:
            return
        if size > quota.bytes:
            raise RefusedError(
                413,
                f"the body has {size:,} bytes, and the token {token.id} may send {quota}; "
                "send less at once",
            )
        usage = self._usage_now(token.id, quota, now)
        if usage.bytes + size > quota.bytes:
            raise _exceeded(token, quota, now, f"{usage.bytes:,} bytes and {size:,} of this one")
        usage.bytes += size

    def release_bytes(self, token: Token, size: int) -> None:
        """Subtract a body that could not be stored."""
        if token.quota is not None and token.quota.bytes is not None:
            usage = self._usage[token.id]
            usage.bytes = max(0, usage.bytes - size)

    def _usage_now(self, token_id: str, quota: Quota, now: float) -> _Usage:
        period = int(now // SECONDS[quota.per])
        usage = self._usage.get(token_id)
        if usage is None or usage.period != period:
            usage = self._usage[token_id] = _Usage(period)
        return usage


def _exceeded(token: Token, quota: Quota, now: float, sent: str) -> RefusedError:
    left = SECONDS[quota.per] - now % SECONDS[quota.per]
    return RefusedError(
        429,
        f"the token {token.id} of {token.client_id} may send {quota}, and sent {sent} in this "
        f"{quota.per}",
        retry_after=max(1, ceil(left)),
    )
