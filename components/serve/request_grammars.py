"""The grammars that answers are held to, by what requests and settings ask for."""

import logging
from functools import lru_cache
from hashlib import blake2b

import orjson

from components.chat import answer_grammar
from components.chat.answer_grammar import UnsupportedSchemaError
from components.chat.dialects import Dialect
from components.chat.grammar_processes import BusyCompilerError, GrammarProcesses
from components.serve.chat_request import ChatRequest
from components.serve.openai_error import OpenAiError
from components.serve.routes import Served
from components.serve.settings import WorkloadServing

LOG = logging.getLogger(__name__)


class RequestGrammars:
    """Has grammars compiled; belongs to one event loop."""

    def __init__(self) -> None:
        self._processes = GrammarProcesses()

    async def close(self) -> None:
        """Stop compiling; requests that wait for a grammar are refused with 503."""
        await self._processes.close()

    async def of_request(
        self, client: str, request: ChatRequest, own: WorkloadServing, served: Served, form: Dialect
    ) -> str | None:
        """Return the grammar of a request's answers; ``None`` where any text may come.

        Raises:
            OpenAiError: 400, for a schema that can't be one, if the request asks to be held to it;
                429 for a client whose schemas take more than its share.
        """
        is_constrained = served.constrained if own.constrained is None else own.constrained
        if request.endpoint == "completion":
            return None
        labels = own.labels or (served.labels if is_constrained else ())
        if labels and not request.may_call and request.response_format is None:
            return _of_labels(labels)
        if not (request.may_call and is_constrained) and not request.asks_for_form:
            return None
        task = orjson.dumps(
            {
                "form": form,
                "tools": request.offered,
                "tool_choice": request.tool_choice,
                "response_format": request.response_format,
                "parallel": request.is_parallel,
                "may_be_loose": request.asks_for_form,
            }
        )
        try:
            return await self._processes.compile(client, task)
        except BusyCompilerError as error:
            status = 429 if error.is_share else 503
            raise OpenAiError(status, str(error), retry_after=error.retry_after) from error
        except ValueError as error:
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
            # and Python's sets, and their tools worked before the version answered. The error
            # itself may quote the client's words.
            LOG.warning(
                "calls for %s are not held to their schemas: %s of the request with the hash %s",
                served.name,
                type(error).__name__,
                blake2b(task, digest_size=8).hexdigest(),
            )
            return None


@lru_cache(maxsize=64)
def _of_labels(labels: tuple[str, ...]) -> str:
    return answer_grammar.of_labels(labels)
