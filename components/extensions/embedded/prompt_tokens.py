"""The tokens of a request's prompt; a long text is read in a thread, a client's one by one."""

import asyncio

from components.extensions.embedded.completion_request import CompletionRequest
from components.extensions.embedded.shared_base import SharedBase
from components.worker_processes import ClientTurns

MAX_BYTES = 16
"""Bytes of a text for each token of the context: English has some 4 a token, indented code 8. More
do not fit, and reading them to find that takes two seconds a megabyte."""

SMALL_CHARACTERS = 4096  # are read in 8 ms at most, while other requests wait


class PromptError(ValueError):
    """A prompt that no model can continue."""


class PromptReader:
    """Reads prompts for one base; belongs to one event loop."""

    def __init__(self, base: SharedBase) -> None:
        self._base, self._turns = base, ClientTurns()

    async def read(self, asked: CompletionRequest) -> list[int]:
        """Return a prompt's tokens.

        Raises:
            PromptError: There is none, it is far too long, or it has unknown tokens.
        """
        try:
            prompt = asked.only_prompt()
        except ValueError as error:
            raise PromptError(str(error)) from error
        tokens = await self._encode(prompt, asked) if isinstance(prompt, str) else prompt
        if not tokens:
            raise PromptError("the prompt is empty: expected at least one token")
        size = self._base.vocabulary
        if (largest := max(tokens)) >= size:
            raise PromptError(f"token id {largest} is out of the vocabulary, 0 to {size - 1}")
        return tokens

    async def _encode(self, text: str, asked: CompletionRequest) -> list[int]:
        most = self._base.context * MAX_BYTES
        if (size := len(text.encode())) > most:
            raise PromptError(
                f"This model's maximum context length is {self._base.context} tokens, which is at "
                f"most {most} bytes of text. However, the prompt has {size}."
            )

        def encode() -> list[int]:
            return self._base.tokenizer.encode(text, add_special_tokens=asked.add_special_tokens)

        if len(text) <= SMALL_CHARACTERS:
            return encode()
        async with self._turns.turn(asked.user or ""):
            return await asyncio.to_thread(encode)  # which lets other threads run
