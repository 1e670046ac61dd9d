"""Read a request's body within its bounds, unpacked if it is gzip'd."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from components.receive.admission import Hold
from components.receive.refusal import RefusedError

_GZIP = 31  # zlib: window of 2**15, with gzip's header and trailer
_PIECE = 64 * 2**10
"""Packed bytes that are looked at together, as what lies behind a member's end is copied each time;
and the bytes that are unpacked before other requests have their turn, half a millisecond."""

MOST_MEMBERS = 512
"""``bgzip`` makes one for each 64 KiB; each costs a new unpacker, 30 microseconds."""

LARGE_BYTES = 2**17
"""A body of which more than this has come, or was unpacked, keeps the pace of its client."""

_ENCODINGS = {"", "identity", "gzip", "x-gzip"}


async def read(
    request: Request, hold: Hold, most: int, keep_pace: Callable[[int], Awaitable[None]]
) -> bytes:
    """Read the body; what it takes is held until the request is answered.

    Args:
        request: Whose head has come.
        hold: Its account.
        most: The largest body that is taken, as sent or unpacked.
        keep_pace: Waits until the client may send so many bytes more; asked about large bodies.

    Raises:
        RefusedError: 413 for too much, 415 for another encoding than gzip, 400 for bad gzip.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise RefusedError(415, f"the content encoding is {encoding}, wants gzip or none")
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
    """Unpack one or more gzip members."""
    whole, members, unpacker = bytearray(), 0, None
    for start in range(0, len(content), _PIECE):
        packed = content[start : start + _PIECE]
        while packed:
            if unpacker is None:
                unpacker, members = zlib.decompressobj(_GZIP), members + 1
                if members > MOST_MEMBERS:
                    reason = f"the body has more than {MOST_MEMBERS} gzip members, wants one"
                    raise RefusedError(400, reason)
            try:
                part = unpacker.decompress(packed, _PIECE)
            except zlib.error as error:
                raise RefusedError(400, f"the body is no gzip stream: {error}") from error
            if len(whole) + len(part) > most:
                raise _too_long(f"more than {most} bytes unpacked", most)
            hold.take(len(part))
            whole += part
            packed = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            unpacker = None if unpacker.eof else unpacker
            await (keep_pace(len(part)) if len(whole) > LARGE_BYTES else asyncio.sleep(0))
    if unpacker is not None:
        raise RefusedError(400, "the body is a gzip stream that breaks off before its end")
    return bytes(whole)


def _too_long(found: str, most: int) -> RefusedError:
    return RefusedError(413, f"the body has {found}, wants at most {most}; send less at once")
