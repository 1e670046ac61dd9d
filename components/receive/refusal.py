"""The one way in which a request is turned down."""


class RefusedError(Exception):
    """A request that is not taken: its status, the reason, and when to try again."""

    def __init__(self, status: int, reason: str, *, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
