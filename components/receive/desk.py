"""The way of a request from its head to the disk."""

import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from starlette.requests import Request

from components import spool
from components.receive import body
from components.receive.admission import Admission
from components.receive.commits import Commits
from components.receive.entry import Envelope
from components.receive.limits import Limits
from components.receive.metrics import Metrics
from components.receive.pace import Pace
from components.receive.quotas import Quotas
from components.receive.readers import Readers
from components.receive.refusal import RefusedError
from components.receive.tokens import Keyring, Token, TokenError

LARGE_BYTES = 2**18
"""Writing a longer line takes longer than others should wait for the disk."""


class Desk:
    """What all requests share; made inside the event loop that serves them."""

    def __init__(self, folder: Path, tokens: Path, limits: Limits) -> None:
        self.metrics = Metrics()
        self._small = Commits(folder, limits, self.metrics.observe_commit)
        self._large = Commits(folder, limits, self.metrics.observe_commit)
        self._limits = limits
        self._keyring = Keyring(tokens)
        self._admission = Admission(limits)
        self._quotas = Quotas()
        self._pace = Pace(limits.large_bytes_per_second)
        self._readers = Readers()
        self.metrics.watch(
            "held_bytes", "Bodies that wait for the disk.", lambda: self._admission.held_bytes
        )
        self.metrics.watch(
            "spooled_bytes", "Bytes that wait for collect.", lambda: self._small.spooled_bytes
        )
        self.metrics.watch(
            "spooled_oldest_seconds",
            "Age of the oldest of what waits for collect; 0 if nothing does.",
            lambda: spool.age(folder, time.time()),
        )

    def require_health(self) -> None:
        """Check that requests can be taken.

        Raises:
            RefusedError: 503 with the reason why they can't.
        """
        both = self._small, self._large
        for commits in both:
            commits.require_room()
        if (failure := max(both, key=lambda commits: commits.tried_at).failure) is not None:
            raise RefusedError(503, failure)

    async def take(self, request: Request, kind: spool.Kind) -> int:
        """Put what a request brings on the disk; return how many records that is.

        Raises:
            RefusedError: The request is not taken, and nothing of it is stored.
        """
        began = time.perf_counter()
        token = self._token(request.headers.get("authorization"))
        token.require(kind, now=datetime.now(UTC))
        self._quotas.count_request(token, time.time())
        self._small.require_room()
        with self._admission.admit(token.client_id) as hold:
            keep_pace = partial(self._pace.keep, token.client_id)
            content = await body.read(request, hold, self._limits.body_bytes, keep_pace)
            envelope = Envelope(kind, request.headers.get("content-type", ""), token)
            entry = await self._readers.read(envelope, content)
            if entry.count:
                await self._commit(token, len(content), entry.line)
        self.metrics.records.labels(kind, token.client_id).inc(entry.count)
        self.metrics.request_seconds.observe(time.perf_counter() - began)
        return entry.count

    async def close(self) -> None:
        """Commit what waits, seal the segments and end the readers."""
        await self._small.close()
        await self._large.close()
        await self._readers.close()

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
            await (self._large if len(line) > LARGE_BYTES else self._small).commit(line)
        except RefusedError:
            self._quotas.give_back_bytes(token, size)
            raise
