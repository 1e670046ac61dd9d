"""The OpenAI-compatible servers that ``serve.yaml`` names: they get requests as they were sent."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

import aiohttp
import orjson

from components.serve.answer_log import Interaction
from components.serve.body_fields import Obj
from components.serve.chat_answer import AnswerDraft, VisiblePart
from components.serve.chat_request import ChatRequest
from components.serve.engines import http_upstream
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import HttpAnswer, UpstreamError
from components.serve.relayed_answer import RelayedAnswer, is_failure
from components.serve.settings import Fallback, OpenAiFallback, ServeSettings


class FallbackServers:
    """A client for each server; ``environment`` has their keys."""

    def __init__(self, settings: ServeSettings, environment: Mapping[str, str]) -> None:
        self._servers = dict[OpenAiFallback, HttpUpstream]()
        for fallback in _all_fallbacks(settings):
            if fallback not in self._servers:
                self._servers[fallback] = _server(fallback, environment, settings)

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers.values():
            await server.close()

    async def ask(
        self,
        fallback: OpenAiFallback,
        interaction: Interaction,
        draft: AnswerDraft,
        hold: Callable[[int], None],
    ) -> AsyncGenerator[VisiblePart]:
        """Yield a server's answer as it comes, and keep its copy in ``draft.relayed``.

        Of the request only ``model`` is changed, and a stream's usage is asked for. ``hold`` counts
        the answer's bytes, which are in memory until its record is on disk.

        Raises:
            UpstreamError: It failed, or what it answers is no answer.
            RefusedError: ``hold`` refuses more bytes.
        """
        server, request = self._servers[fallback], interaction.request
        body, adds_usage = _body(request, fallback.model)
        asking = server.relay(request.path, orjson.dumps(body), traceparent=interaction.traceparent)
        async with asking as response:
            head = http_upstream.head_of(response)
            answer = draft.relayed = RelayedAnswer(
                draft.id,
                fallback.model,
                f"{interaction.workload}@",
                drops_usage=adds_usage,
                media_type=head.media_type,
                headers=head.headers,
            )
            if request.is_streamed and response.content_type == "text/event-stream":
                async for content in _events(answer, head, response, hold):
                    yield VisiblePart(relayed=content)
            else:
                content = await http_upstream.read_body(fallback.name, response, hold)
                if not answer.read_whole(content):
                    raise _no_answer(head, content)
                yield VisiblePart()
            draft.finish = answer.finish
            draft.prompt_tokens, draft.completion_tokens = answer.tokens()


def _body(request: ChatRequest, model: str) -> tuple[Obj, bool]:
    """Return what to send, and whether it asks for a usage that the client did not ask for."""
    body = {**request.sent, "model": model}
    if not request.is_streamed or request.has_usage or request.responses is not None:
        return body, False
    options = body.get("stream_options")
    given = options if isinstance(options, dict) else {}
    return {**body, "stream_options": {**given, "include_usage": True}}, True


async def _events(
    answer: RelayedAnswer,
    head: HttpAnswer,
    response: aiohttp.ClientResponse,
    hold: Callable[[int], None],
) -> AsyncGenerator[bytes]:
    """Yield what the client may see of a stream that is not at its end."""
    is_begun = False
    blocks = http_upstream.blocks(response)
    try:
        async for block in blocks:
            hold(len(block))
            if not is_begun and is_failure(http_upstream.parse(http_upstream.data_of(block))):
                raise _no_answer(head, b"".join([block, *[rest async for rest in blocks]]))
            if content := answer.event(block):
                is_begun = True
                yield content
            if answer.is_done:
                await http_upstream.read_to_end(response)
                return
    except aiohttp.ClientError:
        if not answer.is_ended:
            raise
    if not answer.is_ended:
        raise UpstreamError(502, f"{response.url.host}: the answer was cut", is_retryable=True)


def _no_answer(head: HttpAnswer, content: bytes) -> UpstreamError:
    """Return the error of a server whose status is 200 and that answers something else."""
    head.content = content
    return UpstreamError(502, "expected an answer, found none", is_retryable=True, answer=head)


def _all_fallbacks(settings: ServeSettings) -> Iterator[OpenAiFallback]:
    lists: list[tuple[Fallback, ...]] = [settings.fallbacks]
    lists += [own.fallbacks or () for own in settings.workloads.values()]
    for fallbacks in lists:
        for fallback in fallbacks:
            if isinstance(fallback, OpenAiFallback):
                yield fallback


def _server(
    fallback: OpenAiFallback, environment: Mapping[str, str], settings: ServeSettings
) -> HttpUpstream:
    return HttpUpstream(
        fallback.url,
        api_key=http_upstream.read_key(fallback.api_key_env, environment, fallback.name),
        answer_seconds=settings.limits.answer_seconds,
    )
