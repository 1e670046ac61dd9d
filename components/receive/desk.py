"""The way of a request from its head to the disk."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from starlette.requests import Request

from components import spool
from components.receive import body, records
from components.receive.admission import Admission
from components.receive.commits import Commits
from components.receive.limits import Limits
from components.receive.metrics import Metrics
from components.receive.quotas import Quotas
from components.receive.refusal import RefusedError
from components.receive.tokens import Keyring, Token, TokenError


class Batch(Protocol):
    """What a body holds: one JSON text for the spool, and how many records that is."""

    @property
    def body(self) -> bytes:
        """The JSON text."""
        ...

    @property
    def count(self) -> int:
        """How many records, spans or log records."""
        ...


class Desk:
    """What all requests share; made inside the event loop that serves them."""

    def __init__(self, folder: Path, tokens: Path, limits: Limits) -> None:
        self.metrics = Metrics()
        self.commits = Commits(folder, limits, self.metrics.observe_commit)
        self._limits = limits
        self._keyring = Keyring(tokens)
        self._admission = Admission(limits)
        self._quotas = Quotas()
        self.metrics.watch(
            "held_bytes", "Bodies that wait for the disk.", lambda: self._admission.held_bytes
        )
        self.metrics.watch(
            "spooled_bytes", "Bytes that wait for collect.", lambda: self.commits.spooled_bytes
        )
        self.metrics.watch(
            "spooled_oldest_seconds",
            "Age of the oldest of what waits for collect; 0 if nothing does.",
            lambda: spool.age(folder, time.time()),
        )

    async def take(self, request: Request, kind: spool.Kind, read: Callable[[bytes], Batch]) -> int:
        """Put what a request brings on the disk; return how many records that is.

        Raises:
            RefusedError: The request is not taken, and nothing of it is stored.
        """
        began = time.perf_counter()
        token = self._token(request.headers.get("authorization"))
        token.require(kind, now=datetime.now(UTC))
        self._quotas.count_request(token, time.time())
        self.commits.require_room()
        with self._admission.admit(token.client_id) as hold:
            content = await body.read(request, hold, self._limits.body_bytes)
            batch = read(content)
            if not token.has_every_workload:
                records.require_workloads(batch.body, token)
            if batch.count:
                line = spool.line(kind, token.client_id, batch.body)
                await self._commit(token, len(content), line)
        self.metrics.records.labels(kind, token.client_id).inc(batch.count)
        self.metrics.request_seconds.observe(time.perf_counter() - began)
        return batch.count

    def _token(self, authorization: str | None) -> Token:
        try:
            token = self._keyring.find(authorization)
        except TokenError as error:
            raise RefusedError(503, "the receiver's tokens can't be read") from error
        if token is None:
            raise RefusedError(401, "the bearer token is missing or unknown")
        return token

    async def _commit(self, token: Token, size: int, line: bytes) -> None:
        self._quotas.count_bytes(token, size, time.time())
        try:
            await self.commits.commit(line)
        except RefusedError:
            self._quotas.give_back_bytes(token, size)
            raise
