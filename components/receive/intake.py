"""The path of a request to disk: token, quota, admission, parsing, group commit; metrics."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request

from components.receive import admission
from components.receive.admission import Admission, Hold, Pace
from components.receive.client_tokens import Quotas, Token, TokenError, TokenFile
from components.receive.payloads import Envelope, SpoolLine
from components.receive.readers import Readers
from components.receive.settings import MIB, Limits, RefusedError
from components.store import spool

RETRY_SECONDS = 5
MEASURE_SECONDS = 2.0

SEGMENT_BYTES = 32 * MIB
"""A segment of this size is sealed; larger segments need more memory to load."""

LARGE_BYTES = 2**18
"""Longer lines have a segment of their own, because other lines would wait too long for them."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one receiver, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.records = Counter(
            "flywheel_receive_records",
            "Interactions, feedback, spans and log records that were acknowledged.",
            ["kind", "client_id"],
            registry=self._registry,
        )
        self.doubtful = Counter(
            "flywheel_receive_doubtful_records",
            "Acknowledged records that collecting will quarantine; their senders were warned.",
            ["kind", "client_id"],
            registry=self._registry,
        )
        self.answers = Counter(
            "flywheel_receive_answers",
            "Requests by how they were answered.",
            ["path", "status"],
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "flywheel_receive_request_seconds",
            "From the head of an acknowledged request to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._commit_seconds = Histogram(
            "flywheel_receive_commit_seconds",
            "Writing one group of requests to the disk, fsync included.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._committed = Counter(
            "flywheel_receive_committed_bytes",
            "Bytes written to segments.",
            registry=self._registry,
        )

    def observe_commit(self, seconds: float, size: int) -> None:
        """Count one group of ``size`` bytes on disk."""
        self._commit_seconds.observe(seconds)
        self._committed.inc(size)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape."""
        gauge = Gauge(f"flywheel_receive_{name}", text, registry=self._registry)
        gauge.set_function(value)

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class Commits:
    """Writes one segment after another; belongs to one event loop.

    A receiver has two, because a line waits for all earlier lines of its segment.
    """

    def __init__(self, folder: Path, limits: Limits, observe: Callable[[float, int], None]) -> None:
        """Recover the segments of a killed receiver and start the writer.

        ``observe`` is called after each commit with its seconds and bytes.
        """
        self._writer = spool.Writer(folder)
        spool.recover(folder)
        self._folder = folder
        self._limits = limits
        self._observe = observe
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._is_closing = False
        self._disk = ThreadPoolExecutor(1, "disk")
        self._task = asyncio.create_task(self._run())
        self.failure: str | None = None  # the error of the last commit
        self.tried_at = time.monotonic()  # the start of the last commit
        self.spooled_bytes = spool.stored_bytes(folder)
        self._measured = time.monotonic()

    def require_room(self) -> None:
        """Refuse with 503 if the writer has ended, or the spool is full."""
        if self._task.done():
            raise _unavailable("the writer of this receiver has ended; start it again")
        if self.spooled_bytes >= self._limits.spooled_bytes:
            raise _unavailable(
                f"{self.spooled_bytes} bytes wait for `flywheel collect`, and the spool may hold "
                f"{self._limits.spooled_bytes}"
            )

    async def commit(self, line: bytes) -> None:
        """Wait until ``line`` is on disk; refuse with 503 if it can't be written."""
        self.require_room()
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, written))
        self._arrived.set()
        await written

    async def close(self) -> None:
        """Commit the waiting lines and seal the segment."""
        self._is_closing = True
        self._arrived.set()
        await self._task
        self._disk.shutdown()

    async def _run(self) -> None:
        """Write group after group; the next one gathers while the disk writes this one."""
        on_disk = asyncio.get_running_loop().run_in_executor
        try:
            while self._waiting or not self._is_closing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_until_due()):
                        await self._arrived.wait()
                self._arrived.clear()
                if self._waiting:
                    group, self._waiting = self._waiting, []
                    await on_disk(self._disk, self._write, [line for line, _ in group])
                    self._settle(group)
                if self._seconds_until_due() == 0:
                    await on_disk(self._disk, self._maintain)
            await on_disk(self._disk, self._writer.seal)
        finally:
            self.failure = self.failure or "the writer has ended"
            self._settle(self._waiting)

    def _seconds_until_due(self) -> float:
        if self._writer.size >= SEGMENT_BYTES:
            return 0.0
        until_measured = self._measured + MEASURE_SECONDS - time.monotonic()
        until_old = self._limits.segment_seconds - self._writer.age
        return max(0.0, min(until_measured, until_old))

    def _write(self, lines: Sequence[bytes]) -> None:
        began, self.tried_at = time.perf_counter(), time.monotonic()
        try:
            self._writer.commit(lines)
        except OSError as error:
            self.failure = f"writing to the spool {self._folder} failed: {error}"
            return
        self.failure = None
        self._observe(time.perf_counter() - began, sum(len(line) for line in lines))

    def _settle(self, group: Sequence[tuple[bytes, asyncio.Future[None]]]) -> None:
        for _, written in group:
            if written.done():  # its client has gone
                continue
            if self.failure is None:
                written.set_result(None)
            else:
                written.set_exception(_unavailable(self.failure))

    def _maintain(self) -> None:
        """Seal a large or old segment; every ``MEASURE_SECONDS`` measure the spool, or retry it.

        A gateway sends no line after a failure, so a failed writer itself has to find out that the
        disk has room again.
        """
        is_large = self._writer.size >= SEGMENT_BYTES
        try:
            if is_large or self._writer.age >= self._limits.segment_seconds:
                self._writer.seal()
            if time.monotonic() - self._measured >= MEASURE_SECONDS:
                self._measured = time.monotonic()
                self.spooled_bytes = spool.stored_bytes(self._folder)
                if self.failure is not None:
                    spool.require_writable(self._folder)
                    self.failure = None
        except OSError as error:
            self.failure = f"maintaining the spool {self._folder} failed: {error}"


def _unavailable(reason: str) -> RefusedError:
    return RefusedError(503, reason, retry_after=RETRY_SECONDS)


class Desk:
    """The state shared by all requests; created inside the event loop that serves them."""

    def __init__(self, folder: Path, tokens: Path, limits: Limits) -> None:
        self.metrics = Metrics()
        self._small = Commits(folder, limits, self.metrics.observe_commit)
        self._large = Commits(folder, limits, self.metrics.observe_commit)
        self._limits = limits
        self._keyring = TokenFile(tokens)
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
        """Refuse with 503 and the reason if requests are not accepted."""
        both = self._small, self._large
        for commits in both:
            commits.require_room()
        if (failure := max(both, key=lambda commits: commits.tried_at).failure) is not None:
            raise RefusedError(503, failure)

    async def take(self, request: Request, kind: spool.Kind) -> SpoolLine:
        """Write a request's records to disk and return their line; store none if refused."""
        began = time.perf_counter()
        token = self.authorize(request.headers.get("authorization"), kind)
        self._small.require_room()
        with self.hold(token) as hold:
            content = await self.read_body(request, token, hold, self._limits.body_bytes)
            content_type = request.headers.get("content-type", "")
            envelope = Envelope(kind, content_type, token, time.time())
            spool_line = await self._readers.read(envelope, content)
            if spool_line.count:
                await self._commit(token, len(content), spool_line.line)
        self.metrics.records.labels(kind, token.client_id).inc(spool_line.count)
        if spool_line.doubtful:
            self.metrics.doubtful.labels(kind, token.client_id).inc(spool_line.doubtful)
        self.metrics.request_seconds.observe(time.perf_counter() - began)
        return spool_line

    def authorize(self, authorization: str | None, kind: spool.Kind) -> Token:
        """Return a request's token and count the request; refuse it without a valid token."""
        token = self._token(authorization)
        token.require(kind, now=datetime.now(UTC))
        self._quotas.count_request(token, time.time())
        return token

    def hold(self, token: Token) -> Hold:
        """Return a hold for the bytes of a client's request."""
        return self._admission.admit(token.client_id)

    async def read_body(self, request: Request, token: Token, hold: Hold, most: int) -> bytes:
        """Return a request's body of at most ``most`` bytes, unpacked."""
        keep_pace = partial(self._pace.keep, token.client_id)
        return await admission.read_body(request, hold, most, keep_pace)

    def count_bytes(self, token: Token, size: int) -> None:
        """Count a body of a client; refuse what exceeds its quota."""
        self._quotas.count_bytes(token, size, time.time())

    async def write(self, line: bytes) -> None:
        """Wait until a line is on disk; refuse with 503 if it can't be written.

        The line is queued before the first wait: a cancelled caller's line is written as well.
        """
        await (self._large if len(line) > LARGE_BYTES else self._small).commit(line)

    async def close(self) -> None:
        """Commit the waiting lines, seal the segments and end the readers."""
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
        self.count_bytes(token, size)
        try:
            await self.write(line)
        except RefusedError:
            self._quotas.release_bytes(token, size)
            raise
