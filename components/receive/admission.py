"""Bound the bytes that wait for the disk: in all, and for each client."""

from collections import Counter
from types import TracebackType

from components.receive.limits import Limits
from components.receive.refusal import RefusedError

RETRY_SECONDS = 1


class Admission:
    """Counts the bytes that are held now."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.held_bytes
        self._most_each = int(limits.held_bytes * limits.client_share)
        self._held: Counter[str] = Counter()
        self.held_bytes = 0

    def admit(self, client_id: str) -> "Hold":
        """Open the account of one request; what it took is given back at the end of the block."""
        return Hold(self, client_id)

    def take(self, client_id: str, size: int) -> None:
        """Count bytes in.

        Raises:
            RefusedError: 429 where this client holds too much, 503 where all clients do.
        """
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

    def give_back(self, client_id: str, size: int) -> None:
        """Count bytes out."""
        self._held[client_id] -= size
        self.held_bytes -= size
        if not self._held[client_id]:
            del self._held[client_id]


class Hold:
    """What one request holds."""

    __slots__ = ("_admission", "_client_id", "_size")

    def __init__(self, admission: Admission, client_id: str) -> None:
        self._admission = admission
        self._client_id = client_id
        self._size = 0

    def take(self, size: int) -> None:
        """Hold more; raises as ``Admission.take`` does."""
        self._admission.take(self._client_id, size)
        self._size += size

    def __enter__(self) -> "Hold":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.give_back(self._client_id, self._size)
