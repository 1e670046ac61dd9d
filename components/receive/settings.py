"""The receiver's limits, and the error for refused requests."""

from pydantic import Field

from components.schema import Config

MIB = 2**20


class Limits(Config):
    """Bounds that keep a receiver available to all its clients."""

    body_bytes: int = Field(default=16 * MIB, ge=1)
    """A longer body, as sent or unpacked, is answered with 413."""

    request_seconds: float = Field(default=30.0, gt=0)
    """A request that has not fully arrived after this many seconds is answered with 408 and cut."""

    write_seconds: float = Field(default=30.0, gt=0)
    """A client that reads nothing of its answer for this many seconds is cut."""

    connections: int = Field(default=512, ge=1)
    """Connections beyond these are answered with 503 and closed."""

    held_bytes: int = Field(default=64 * MIB, ge=1)
    """Total bytes of bodies that wait for the disk; more are answered with 503."""

    client_share: float = Field(default=0.5, gt=0, le=1)
    """Fraction of ``held_bytes`` and ``connections`` that one client may use; more is answered with
    429."""

    large_bytes_per_second: int = Field(default=16 * MIB, ge=1)
    """Maximum rate at which all large bodies of a client are received and unpacked."""

    spooled_bytes: int = Field(default=16 * 1024 * MIB, ge=1)
    """Once this many bytes wait for collect, all requests are answered with 503."""

    segment_bytes: int = Field(default=32 * MIB, ge=1)
    """A segment of this size is sealed; larger segments need more memory to load."""

    segment_seconds: float = Field(default=5.0, gt=0)
    """A segment of this age is sealed; collect does not see younger segments."""


class RefusedError(Exception):
    """A refused request: its HTTP status, the reason, and the seconds until a retry."""

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
