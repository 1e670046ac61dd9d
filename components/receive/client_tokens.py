"""Bearer tokens of clients, kept as hashes in one JSON file, and their quotas."""

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
"""Kinds whose records name their workload where the receiver can read it."""

KINDS: tuple[Kind, ...] = (*RECORDS, "traces", "logs")
EVERY_WORKLOAD = ("*",)

_PREFIX = "fw"
_SPAN = re.compile(r"(\d{1,6})([dh])")
_UNITS = {"d": "days", "h": "hours"}
_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class TokenError(ValueError):
    """A token that can't be added or removed, or a file that can't be read."""


class Quota(Config):
    """How much a token may send in each minute, hour or day (UTC); ``None`` is without bound."""

    requests: int | None = Field(default=None, ge=1)
    """Requests, those that are turned down later included; more are answered with 429."""

    bytes: int | None = Field(default=None, ge=1)
    """Bytes of the bodies that are stored, unpacked; more are answered with 429."""

    per: Period = "day"
    """The period that begins anew: with each minute, hour or day of UTC."""

    def __str__(self) -> str:
        """Say it in a few words."""
        parts = [
            f"{most:,} {unit}"
            for most, unit in ((self.requests, "requests"), (self.bytes, "bytes"))
            if most is not None
        ]
        return f"{', '.join(parts)} a {self.per}"


class Token(Config):
    """What is known of a token; ``id`` is its middle part, ``sha256`` the hash of its secret."""

    id: str
    client_id: str
    sha256: str
    created_at: str

    workloads: tuple[str, ...] = EVERY_WORKLOAD
    """Patterns as of file names (``support*``); records of other workloads are answered with 403.
    """

    kinds: tuple[Kind, ...] = KINDS
    """What may be sent; another kind is answered with 403."""

    expires_at: AwareDatetime | None = None
    """From when on it is answered with 401; never if unset."""

    quota: Quota | None = None
    """How much it may send; without bound if unset."""

    @property
    def has_every_workload(self) -> bool:
        """Whether it may send for all workloads."""
        return "*" in self.workloads

    def may_send_for(self, workload_id: object) -> bool:
        """Return whether a record may say that it is of this workload."""
        return isinstance(workload_id, str) and any(
            fnmatchcase(workload_id, pattern) for pattern in self.workloads
        )

    def require(self, kind: Kind, *, now: datetime) -> None:
        """Check that a request of this kind may come with the token now.

        Raises:
            RefusedError: 401 where it has expired, 403 where it is not for this kind.
        """
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
    """Make a token for a client and return it: this is the only time that it can be read.

    Args:
        file: The file of tokens.
        client_id: The client of all that comes with it.
        now: When it is made (UTC).
        workloads: The patterns of the workloads that it may send for.
        kinds: What it may send; if ``None`` all, or what names its workload where it is limited.
        expires_at: From when on it is refused.
        quota: How much it may send.

    Raises:
        TokenError: The client's name is empty or has white space around it, a pattern is empty, it
            would have expired already, or telemetry is to be limited to workloads.
    """
    if not client_id or client_id != client_id.strip():
        raise TokenError(f"adding a token: the client is {client_id!r}, wants a name")
    if not workloads or not all(workloads):
        raise TokenError("adding a token: a pattern of workloads is empty, wants a name or '*'")
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
    with _locked(file):
        _write(file, [*read_tokens(file), token])
    return f"{_PREFIX}_{token.id}_{secret}"


def remove_token(file: Path, token_id: str) -> Token:
    """Take a token's rights away; a running receiver knows it at its next request.

    Raises:
        TokenError: There is none with this id.
    """
    with _locked(file):
        tokens = read_tokens(file)
        removed = [token for token in tokens if token.id == token_id]
        if not removed:
            known = ", ".join(token.id for token in tokens) or "none"
            raise TokenError(f"removing token {token_id}: there is no such id; known: {known}")
        _write(file, [token for token in tokens if token.id != token_id])
    return removed[0]


def read_tokens(file: Path) -> list[Token]:
    """Read all tokens; none where the file does not exist.

    Raises:
        TokenError: It does not hold tokens.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    try:
        return [Token.model_validate(token) for token in json.loads(text)]
    except (ValidationError, ValueError, TypeError) as error:
        raise TokenError(f"reading {file}: it is not a list of tokens: {error}") from error


def parse_expiry(text: str, *, now: datetime) -> datetime:
    """Read when a token expires: a date or time of ISO 8601, or days or hours from ``now``.

    Raises:
        TokenError: It is none of these.
    """
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
    """Finds the token of a request; reads the file again whenever it was replaced."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version: tuple[int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def find(self, authorization: str | None) -> Token | None:
        """Return the token that an ``Authorization`` header carries; ``None`` if it has none.

        Raises:
            TokenError: The file does not hold tokens.
        """
        self._refresh()
        scheme, _, credentials = (authorization or "").partition(" ")
        prefix, _, rest = credentials.strip().partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._tokens.get(token_id)
        expected = token.sha256 if token else _NOBODY
        is_right = hmac.compare_digest(_hash(secret), expected)
        if scheme.lower() != "bearer" or prefix != _PREFIX or token is None or not is_right:
            return None
        return token

    def _refresh(self) -> None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            self._version, self._tokens = None, {}
            return
        version = (found.st_ino, found.st_mtime_ns)
        if version != self._version:
            self._tokens = {token.id: token for token in read_tokens(self._file)}
            self._version = version


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _locked(file: Path) -> AbstractContextManager[bool]:
    """Keep others from changing the file; its lock stays beside it, as the file is replaced."""
    return file_locks.held(file.with_name(f"{file.name}.lock"), mode=0o600)


def _write(file: Path, tokens: list[Token]) -> None:
    """Replace the file, readable by its owner only."""
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as written:
        kept = [token.model_dump(mode="json", exclude_defaults=True) for token in tokens]
        json.dump(kept, written, indent=2)
        written.flush()
        os.fsync(written.fileno())
    partial.replace(file)


SECONDS: dict[Period, int] = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(slots=True)
class _Usage:
    """What a token sent in the period with this number since 1970."""

    period: int
    requests: int = 0
    bytes: int = 0


class Quotas:
    """What all tokens of a receiver sent."""

    def __init__(self) -> None:
        self._usage: dict[str, _Usage] = {}

    def count_request(self, token: Token, now: float) -> None:
        """Count a request when its head is here; ``now`` is in unix seconds.

        Raises:
            RefusedError: 429 where the token has no requests or no bytes left.
        """
        if (quota := token.quota) is None:
            return
        usage = self._usage_now(token.id, quota, now)
        if quota.requests is not None and usage.requests >= quota.requests:
            raise _exceeded(token, quota, now, f"{usage.requests:,} requests")
        if quota.bytes is not None and usage.bytes >= quota.bytes:
            raise _exceeded(token, quota, now, f"{usage.bytes:,} bytes")
        usage.requests += 1

    def count_bytes(self, token: Token, size: int, now: float) -> None:
        """Count the body of a request that is to be stored.

        Raises:
            RefusedError: 429 where the token has not so many bytes left, 413 where it never has.
        """
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

    def give_back_bytes(self, token: Token, size: int) -> None:
        """Count a body out that could not be stored."""
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
