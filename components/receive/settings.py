"""The receiver's limits, and the error by which it refuses a request."""

from pydantic import Field

from components.schema import Config

MIB = 2**20


class Limits(Config):
    """The bounds that keep a receiver alive, whatever its clients do."""

    body_bytes: int = Field(default=16 * MIB, ge=1)
    """A longer body, as sent or unpacked, is answered with 413."""

    request_seconds: float = Field(default=30.0, gt=0)
    """A request that has not arrived as a whole after this long is answered with 408 and cut."""

    connections: int = Field(default=512, ge=1)
    """Connections beyond these are answered with 503 and closed."""

    held_bytes: int = Field(default=64 * MIB, ge=1)
    """Bodies that wait for the disk, together; more is answered with 503."""

    client_share: float = Field(default=0.5, gt=0, le=1)
    """The part of ``held_bytes`` that one client may use; more is answered with 429."""

    large_bytes_per_second: int = Field(default=16 * MIB, ge=1)
    """Large bodies of one client, together, are received and unpacked no faster."""

    spooled_bytes: int = Field(default=16 * 1024 * MIB, ge=1)
    """Once this much waits for collect, everything is answered with 503."""

    segment_bytes: int = Field(default=32 * MIB, ge=1)
    """A segment of this size is sealed; larger ones are loaded with more memory."""

    segment_seconds: float = Field(default=5.0, gt=0)
    """A segment of this age is sealed; younger ones are not seen by collect."""


class RefusedError(Exception):
    """A request that is not taken: its status, the reason, and when to try again."""

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
