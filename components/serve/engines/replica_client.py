"""What the clients of servers share: a name, a connection, the base, and the adapters' paths."""

from pathlib import Path

from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import UpstreamError


class ReplicaClient:
    """One replica.

    Args:
        name: Its name in logs and routes.
        upstream: Its API.
        base: The name of its base; read from the server if missing.
        adapters: The folder of staged adapters as the server sees it; our own path if missing.
    """

    def __init__(
        self,
        name: str,
        upstream: HttpUpstream,
        *,
        base: str | None = None,
        adapters: Path | None = None,
    ) -> None:
        self.name, self._http, self._adapters = name, upstream, adapters
        self._base: str | None = base

    @property
    def base(self) -> str:
        """The name of its base."""
        if self._base is None:
            raise UpstreamError(503, f"{self.name}: its base is not known yet", is_retryable=True)
        return self._base

    def path_of(self, folder: Path) -> str:
        """Return a staged folder's path as the server sees it."""
        return str(folder if self._adapters is None else self._adapters / folder.name)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()
