"""Render large requests in other processes: some take seconds, for which all others would wait."""

import pickle

from components import worker_processes
from components.serve import served_prompt
from components.serve.answer_log import Interaction
from components.serve.engines.serving_engine import UpstreamError
from components.serve.openai_error import OpenAiError
from components.serve.routes import Served
from components.serve.served_prompt import ServedPrompt
from components.worker_processes import WorkerEndedError, WorkerProcesses

SMALL_BYTES = 32 * 2**10
"""Bodies up to this size are rendered in 8 ms at most, most of them sooner than elsewhere."""

PROCESSES = 2
SECONDS = 10.0
"""What fits into a context is rendered in a tenth of it."""


class PromptProcesses:
    """Renders prompts; belongs to one event loop."""

    def __init__(self) -> None:
        self._processes = WorkerProcesses(__name__, PROCESSES, SECONDS)

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()

    async def render(self, interaction: Interaction, served: Served) -> ServedPrompt:
        """Do as ``served_prompt.render``; a client's large requests wait for each other.

        Raises:
            OpenAiError: Also if it takes too long (400).
            UpstreamError: Also if the process ended (503).
        """
        request = interaction.request
        if interaction.size <= SMALL_BYTES or request.endpoint == "completion":
            return served_prompt.render(request, served)
        task = pickle.dumps((request, served))
        try:
            [answer] = await self._processes.call(interaction.client_id, task)
        except TimeoutError as error:
            reason = f"the prompt was not written in {SECONDS:g} s; send fewer messages and tools"
            raise OpenAiError(400, reason, param="messages") from error
        except WorkerEndedError as error:
            reason = f"the process that writes prompts ended with {error.code}"
            raise UpstreamError(503, reason, is_retryable=True) from error
        rendered = pickle.loads(answer)
        if isinstance(rendered, ServedPrompt):
            return rendered
        kind, message, fields = rendered
        refused = kind.__new__(kind, message)  # what it was made of is in its fields
        vars(refused).update(fields)
        raise refused


def _render(task: list[bytes]) -> tuple[bytes]:
    request, served = pickle.loads(task[0])
    try:
        return (pickle.dumps(served_prompt.render(request, served)),)
    except (OpenAiError, UpstreamError) as error:
        return (pickle.dumps((type(error), str(error), vars(error))),)


if __name__ == "__main__":
    worker_processes.serve_calls(_render)
