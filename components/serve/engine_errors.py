"""What a client is told of an engine's failure: no addresses, they are in the log."""

import re

from components.serve.engines.http_upstream import REQUESTS_FAULT
from components.serve.engines.serving_engine import UpstreamError
from components.serve.openai_error import OpenAiError, PassedOnError

RETRY_SECONDS = 1

_REQUEST_LINE = re.compile(r"^(?:GET|POST) \S+: (?:\d{3} )?")  # engines' addresses stay inside
_CONTEXT = re.compile(r"context|maximum|too long|longer than", re.IGNORECASE)


def is_too_long(error: UpstreamError) -> bool:
    """Return whether a request is refused since it does not fit into the engine's context."""
    return error.status in REQUESTS_FAULT and _CONTEXT.search(error.reason) is not None


_GATEWAYS_OWN = frozenset({401, 403, 407})  # about its key, of which the body may have a part


def passed_on(error: UpstreamError) -> OpenAiError:
    """Return the error of a request that an OpenAI-compatible server refused: as it wrote it."""
    answer = error.answer
    if answer is None or answer.status in _GATEWAYS_OWN or 300 <= answer.status < 400:
        return to_client(error)
    return PassedOnError(answer)


def to_client(error: UpstreamError) -> OpenAiError:
    """Return the error that answers a request."""
    if error.status in (404, 429, 503):
        seconds = max(RETRY_SECONDS, error.retry_after or 0)
        return OpenAiError(503, "the engine is not ready; send it again", retry_after=seconds)
    if error.status == 504:
        return OpenAiError(504, "the engine did not answer in time; send it again")
    if error.status in (401, 403):  # the gateway's own key, of which the reason may have a part
        return OpenAiError(502, "the engine refuses the gateway; its log says why")
    if error.status in REQUESTS_FAULT:
        reason = _REQUEST_LINE.sub("", error.reason)
        is_long = is_too_long(error)
        return OpenAiError(
            400,
            f"the engine refuses the request: {reason}",
            param="messages" if is_long else None,
            code="context_length_exceeded" if is_long else None,
        )
    return OpenAiError(502, "the engine failed; send it again")
