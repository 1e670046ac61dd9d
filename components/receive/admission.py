"""Bound the bytes waiting for the disk, and read a request's body within its limits."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from components.receive.settings import Limits, RefusedError

RETRY_SECONDS = 1
MAX_CLIENTS = 1000  # with more clients, those with nothing to wait for are forgotten
MAX_MEMBERS = 512  # ``bgzip`` writes one per 64 KiB; each costs a new decompressor, 30 microseconds
LARGE_BYTES = 2**17  # received or unpacked bytes of a body from which it is slowed to its pace

_ENCODINGS = {"", "identity", "gzip", "x-gzip"}
_GZIP = 31  # zlib: window of 2**15, with gzip's header and trailer
_PIECE = 64 * 2**10
"""Packed bytes per step, because the bytes after a member's end are copied each time; and unpacked
bytes before other requests get their turn, half a millisecond."""


class Admission:
    """Counts the requests, and the bytes held in memory, per client; the bytes also together."""

    def __init__(self, limits: Limits) -> None:
        self._most_requests = max(1, int(limits.connections * limits.client_share))
        self._requests: Counter[str] = Counter()
        self._most = limits.held_bytes
        self._most_each = int(limits.held_bytes * limits.client_share)
        self._held: Counter[str] = Counter()
        self.held_bytes = 0

    def admit(self, client_id: str) -> "Hold":
        """Return a hold for one request; its bytes are released when its block ends."""
        return Hold(self, client_id)

    def begin(self, client_id: str) -> None:
        """Count a request; refuse with 429 one of a client that has too many connections busy."""
        if self._requests[client_id] >= self._most_requests:
            raise RefusedError(
                429,
                f"{self._most_requests} requests of {client_id} have not ended; send fewer at once",
                retry_after=RETRY_SECONDS,
            )
        self._requests[client_id] += 1

    def end(self, client_id: str) -> None:
        """Count a request's end."""
        self._requests[client_id] -= 1
        if not self._requests[client_id]:
            del self._requests[client_id]

    def take(self, client_id: str, size: int) -> None:
        """Add bytes; refuse with 429 if this client holds too much, 503 if all together do."""
        if self._held[client_id] + size > self._most_each:
            raise RefusedError(
                429,
                f"the requests of {client_id} that wait for the disk would hold more than "
                f"{self._most_each} bytes; send fewer at once",
                retry_after=RETRY_SECONDS,
            )
        if self.held_bytes + size > self._most:
            raise RefusedError(
                503,
                f"requests that wait for the disk hold {self.held_bytes} bytes of {self._most}",
                retry_after=RETRY_SECONDS,
            )
        self._held[client_id] += size
        self.held_bytes += size

    def release(self, client_id: str, size: int) -> None:
        """Subtract bytes."""
        self._held[client_id] -= size
        self.held_bytes -= size
        if not self._held[client_id]:
            del self._held[client_id]


class Hold:
    """One request, and the bytes held by it."""

    __slots__ = ("_admission", "_client_id", "_size")

    def __init__(self, admission: Admission, client_id: str) -> None:
        self._admission = admission
        self._client_id = client_id
        self._size = 0

    def take(self, size: int) -> None:
        """Hold more bytes; refuse like ``Admission.take``."""
        self._admission.take(self._client_id, size)
        self._size += size

    def __enter__(self) -> "Hold":
        self._admission.begin(self._client_id)
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.end(self._client_id)
        self._admission.release(self._client_id, self._size)


class Pace:
    """Keeps each client at its rate; belongs to one event loop."""

    def __init__(self, bytes_per_second: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at: dict[str, float] = {}

    async def keep(self, client_id: str, size: int) -> None:
        """Wait until the client may send ``size`` more bytes, over all its connections."""
        now = asyncio.get_running_loop().time()
        if len(self._free_at) > MAX_CLIENTS:
            self._free_at = {name: at for name, at in self._free_at.items() if at > now}
        free_at = max(now, self._free_at.get(client_id, now)) + size / self._bytes_per_second
        self._free_at[client_id] = free_at
        await asyncio.sleep(free_at - now)


async def read_body(
    request: Request, hold: Hold, most: int, keep_pace: Callable[[int], Awaitable[None]]
) -> bytes:
    """Return the body, unpacked; its bytes stay in ``hold`` until the request is answered.

    Refuse with 413 a body of more than ``most`` bytes, as sent or unpacked, with 415 an encoding
    other than gzip, with 400 bad gzip. ``keep_pace`` waits until the client may send this many more
    bytes of a large body.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise RefusedError(415, f"the content encoding is {encoding}, expected gzip or none")
    length = request.headers.get("content-length")
    if length is not None and int(length) > most:
        raise _too_long(f"{length} bytes", most)
    content = bytearray()
    async for chunk in request.stream():
        if len(content) + len(chunk) > most:
            raise _too_long(f"more than {most} bytes", most)
        hold.take(len(chunk))
        content += chunk
        if len(content) > LARGE_BYTES:
            await keep_pace(len(chunk))
    if encoding not in {"gzip", "x-gzip"}:
        return bytes(content)
    return await _unpacked(bytes(content), hold, most, keep_pace)


async def _unpacked(
    content: bytes, hold: Hold, most: int, keep_pace: Callable[[int], Awaitable[None]]
) -> bytes:
    """Return the content of one or more gzip members."""
    whole, members, unpacker = bytearray(), 0, None
    for start in range(0, len(content), _PIECE):
        packed = content[start : start + _PIECE]
        while packed:
            if unpacker is None:
                unpacker, members = zlib.decompressobj(_GZIP), members + 1
                if members > MAX_MEMBERS:
                    reason = f"the body has more than {MAX_MEMBERS} gzip members, expected one"
                    raise RefusedError(400, reason)
            try:
                part = unpacker.decompress(packed, _PIECE)
            except zlib.error as error:
                raise RefusedError(400, f"the body is not a gzip stream: {error}") from error
            if len(whole) + len(part) > most:
                raise _too_long(f"more than {most} bytes unpacked", most)
            hold.take(len(part))
            whole += part
            packed = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            unpacker = None if unpacker.eof else unpacker
            await (keep_pace(len(part)) if len(whole) > LARGE_BYTES else asyncio.sleep(0))
    if unpacker is not None:
        raise RefusedError(400, "the body is a gzip stream that ends early")
    return bytes(whole)


def _too_long(size: str, most: int) -> RefusedError:
    return RefusedError(413, f"the body has {size}, expected at most {most}; send less at once")
