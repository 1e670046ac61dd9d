"""The receiver's limits, and the error for refused requests."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep a receiver available to all its clients."""

    body_bytes: int = 16 * MIB
    """A longer body, as sent or unpacked, is answered with 413."""

    request_seconds: float = 30.0
    """A request that has not fully arrived after this many seconds is answered with 408 and cut."""

    write_seconds: float = 30.0
    """A client that reads nothing of its answer for this many seconds is cut."""

    connections: int = 512
    """Connections beyond these are answered with 503 and closed."""

    held_bytes: int = 64 * MIB
    """Total bytes of bodies that wait for the disk; more are answered with 503."""

    client_share: float = 0.5
    """Fraction of ``held_bytes`` and ``connections`` that one client may use; more is answered with
    429."""

    large_bytes_per_second: int = 16 * MIB
    """Maximum rate at which all large bodies of a client are received and unpacked."""

    spooled_bytes: int = 16 * 1024 * MIB
    """Once this many bytes wait for collect, all requests are answered with 503."""

    segment_seconds: float = 5.0
    """A segment of this age is sealed; collect does not see younger segments."""


class RefusedError(Exception):
    """A refused request: its HTTP status, the reason, and the seconds until a retry."""

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
