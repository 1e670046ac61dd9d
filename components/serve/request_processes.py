"""Read and render large requests in other processes, which take seconds for some of them."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from components import worker_processes
from components.serve import body_fields, chat_request, responses_request, served_prompt
from components.serve.answer_log import Interaction
from components.serve.body_fields import Obj
from components.serve.chat_request import ChatRequest
from components.serve.engines.serving_engine import UpstreamError
from components.serve.openai_error import OpenAiError
from components.serve.routes import Served
from components.serve.served_prompt import ServedPrompt
from components.worker_processes import WorkerEndedError, WorkerProcesses

Api: TypeAlias = Literal["chat", "responses", "completion"]
Result = TypeVar("Result")

FEW_VALUES = 10_000
"""Bodies with at most so many values are read in 3 ms."""

SMALL_BYTES = 32 * 2**10
"""Bodies up to this size are rendered in 8 ms at most, most of them sooner than elsewhere."""

PROCESSES = 2
SECONDS = 10.0
"""What fits into a context is read and rendered in a tenth of it."""

MEMORY_BYTES = 2**30
"""The most addresses of a process; at rest it has some 100 MiB."""

RETRY_SECONDS = 1

_CHECKED: Mapping[Api, Callable[[Obj], ChatRequest]] = {
    "chat": chat_request.chat_of,
    "responses": responses_request.response_of,
    "completion": chat_request.completion_of,
}

_UNCHECKED: Mapping[Api, Callable[[Obj], ChatRequest]] = {
    "chat": partial(chat_request.unchecked, endpoint="chat"),
    "responses": responses_request.unchecked,
    "completion": partial(chat_request.unchecked, endpoint="completion"),
}


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request as it was sent, for another server, and as a version reads it, or refuses it."""

    sent: ChatRequest
    checked: ChatRequest | OpenAiError


class RequestProcesses:
    """Reads requests and renders prompts; belongs to one event loop.

    A client's large requests wait for each other. Methods raise ``OpenAiError`` also if it takes
    too long (400), or the process ended (503).
    """

    def __init__(self) -> None:
        self._processes = WorkerProcesses(__name__, PROCESSES, SECONDS)

    async def close(self) -> None:
        """End the processes; what waits for one is refused."""
        await self._processes.close()

    async def read(self, client: str, api: Api, content: bytes) -> ReadRequest:
        """Return a request; raise ``OpenAiError`` (400) if nobody can read it."""
        if sum(map(content.count, (b",", b"[", b"{"))) <= FEW_VALUES:
            return _read(api, content)
        return await self._call(client, _read, api, content)

    async def render(self, interaction: Interaction, served: Served) -> ServedPrompt:
        """Do as ``served_prompt.render``."""
        request = interaction.request
        if interaction.size <= SMALL_BYTES or request.endpoint == "completion":
            return served_prompt.render(request, served)
        return await self._call(interaction.client_id, served_prompt.render, request, served)

    async def _call(self, client: str, function: Callable[..., Result], *args: object) -> Result:
        task = pickle.dumps((function, args))
        try:
            [answer] = await self._processes.call(client, task)
        except TimeoutError as error:
            reason = f"the prompt was not written in {SECONDS:g} s; send fewer messages and tools"
            raise OpenAiError(400, reason, param="messages") from error
        except WorkerEndedError as error:
            what = "server ends" if error.code is None else "process that writes prompts ended"
            reason = f"the {what}; send it again"
            raise OpenAiError(503, reason, retry_after=RETRY_SECONDS) from error
        result = pickle.loads(answer)
        if isinstance(result, OpenAiError | UpstreamError):
            raise result
        return result


def _read(api: Api, content: bytes) -> ReadRequest:
    sent = _UNCHECKED[api](body_fields.read_object(content))
    try:
        return ReadRequest(sent, _CHECKED[api](sent.sent))
    except OpenAiError as error:
        return ReadRequest(sent, error)


def _answer(task: list[bytes]) -> tuple[bytes]:
    function, args = pickle.loads(task[0])
    try:
        result = function(*args)
    except (OpenAiError, UpstreamError) as error:
        result = error
    return (pickle.dumps(result),)


if __name__ == "__main__":
    worker_processes.serve_calls(_answer, memory_bytes=MEMORY_BYTES)
