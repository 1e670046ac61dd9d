"""The grammars that answers are held to: compiled once, in a thread, and kept."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import blake2b

import orjson

from components.chat import answer_grammar
from components.chat.answer_grammar import UnsupportedSchemaError
from components.chat.dialects import Dialect
from components.serve.chat_request import ChatRequest
from components.serve.openai_error import OpenAiError
from components.serve.routes import Served
from components.serve.settings import WorkloadServing

LOG = logging.getLogger(__name__)

MOST_KEPT = 512


class RequestGrammars:
    """Compiles and keeps grammars; belongs to one event loop."""

    def __init__(self) -> None:
        self._compiler = ThreadPoolExecutor(1, "grammar")
        self._grammars: dict[bytes, str | None] = {}

    def close(self) -> None:
        """Stop compiling."""
        self._compiler.shutdown(wait=False, cancel_futures=True)

    async def of_request(
        self, request: ChatRequest, own: WorkloadServing, served: Served, form: Dialect
    ) -> str | None:
        """Return the grammar of a request's answers; ``None`` where any text may come.

        Raises:
            OpenAiError: 400, for a schema that can't be one, if the request asks to be held to it.
        """
        is_constrained = served.constrained if own.constrained is None else own.constrained
        if request.endpoint == "completion":
            return None
        labels = own.labels or (served.labels if is_constrained else ())
        if labels and not request.may_call and request.response_format is None:
            return _of_labels(labels)
        if not (request.may_call and is_constrained) and not request.asks_for_form:
            return None
        parts = [form, request.offered, request.tool_choice, request.response_format]
        # Of a tool's long descriptions, which are in no grammar, only their hash is kept.
        key = blake2b(orjson.dumps([*parts, request.is_parallel]), digest_size=16).digest()
        if key in self._grammars:
            return self._grammars[key]
        try:
            grammar = await asyncio.get_running_loop().run_in_executor(
                self._compiler, _compile, form, request
            )
        except (UnsupportedSchemaError, ValueError, RecursionError) as error:
            if request.asks_for_form or not isinstance(error, UnsupportedSchemaError):
                raise OpenAiError(
                    400,
                    f"{error}; change the schema",
                    param="tools" if request.may_call else "response_format",
                    code="invalid_function_parameters"
                    if request.may_call
                    else "invalid_json_schema",
                ) from error
            # As in evaluations: libraries write keywords that no grammar has, such as zod's records
            # and Python's sets, and their tools worked before the version answered.
            LOG.warning("calls for %s are not held to their schemas: %s", served.name, error)
            grammar = None
        if len(self._grammars) >= MOST_KEPT:
            self._grammars.pop(next(iter(self._grammars)))
        self._grammars[key] = grammar
        return grammar


def _compile(form: Dialect, request: ChatRequest) -> str | None:
    of_request = partial(
        answer_grammar.of_request,
        form,
        request.offered,
        request.tool_choice,
        request.response_format,
        parallel=request.is_parallel,
    )
    try:
        return of_request()
    except UnsupportedSchemaError:
        if not request.asks_for_form:
            raise
        return of_request(loosely=True)


@lru_cache(maxsize=64)
def _of_labels(labels: tuple[str, ...]) -> str:
    return answer_grammar.of_labels(labels)
