"""Any OpenAI-compatible server as a fallback, such as a teacher or the model used before.

It neither loads adapters nor scores, so it is no ``ServingEngine``.
"""

from collections.abc import AsyncGenerator, Mapping

from components.schema import Json
from components.serve.engines.http_upstream import HttpUpstream


class OpenAiUpstream:
    """A server and the model to ask there; ``upstream``'s address ends before ``/chat``."""

    def __init__(self, name: str, upstream: HttpUpstream, model: str) -> None:
        self.name, self._http, self.model = name, upstream, model

    async def chat(
        self, body: Mapping[str, Json], *, traceparent: str | None = None
    ) -> dict[str, Json]:
        """Return the completion that answers a chat request; raise ``UpstreamError``."""
        return await self._http.post(
            "/chat/completions",
            self._body(body, is_streamed=False),
            patience_seconds=self._http.answer_seconds,
            traceparent=traceparent,
        )

    def stream_chat(
        self, body: Mapping[str, Json], *, traceparent: str | None = None
    ) -> AsyncGenerator[dict[str, Json]]:
        """Stream the chunks that answer a chat request; raise ``UpstreamError``."""
        return self._http.events(
            "/chat/completions", self._body(body, is_streamed=True), traceparent=traceparent
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    def _body(self, body: Mapping[str, Json], *, is_streamed: bool) -> dict[str, Json]:
        # Fields of ours that OpenAI's server would refuse.
        kept = {name: value for name, value in body.items() if name not in ("store", "metadata")}
        return kept | {"model": self.model, "stream": is_streamed}
