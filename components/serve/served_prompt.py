"""The prompt of a request, written as the version that answers it was trained."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from components.chat import chat_templates
from components.chat.dialects import Dialect
from components.serve import history_calls, plain_template
from components.serve.chat_request import ChatRequest
from components.serve.engines.serving_engine import UpstreamError
from components.serve.openai_error import OpenAiError
from components.serve.plain_template import TemplateFilesError
from components.serve.routes import Served


@dataclass(frozen=True, slots=True)
class ServedPrompt:
    """A prompt, and the syntax of calls in its answer."""

    text: str
    form: Dialect


def render(request: ChatRequest, served: Served) -> ServedPrompt:
    """Return the prompt of a request; that of a completion is sent as it is.

    Raises:
        OpenAiError: The messages have calls that can't be read, or the base's template refuses
            them (400).
        UpstreamError: The template can't be read, or is not the one that was staged (503).
    """
    if request.endpoint == "completion":
        return ServedPrompt(request.prompt, served.form)
    history_calls.require_readable(request.messages)
    try:
        template = _template(served.base, served.template_hash)
        rendered = chat_templates.render(template, request.messages, request.offered)
        return ServedPrompt(rendered.to_text(template), rendered.form)
    except TemplateFilesError as error:
        raise UpstreamError(503, str(error), is_retryable=True) from error
    except (TemplateError, TypeError, ValueError, RecursionError) as error:
        raise OpenAiError(
            400,
            f"the chat template of {served.name} refuses these messages: {error}",
            param="messages",
        ) from error


@lru_cache(maxsize=64)
def _template(base: str, template_hash: str) -> Any:  # noqa: ANN401 - stands in for a tokenizer
    """Return the template of a base's folder, unless it was changed since a version was staged.

    A proof can't find that: it sends texts that are rendered already.
    """
    template = plain_template.read(Path(base))
    if (actual := chat_templates.template_hash(Path(base))) != template_hash:
        raise TemplateFilesError(
            f"reading {base}: prompts would be rendered with the template {actual}, expected "
            f"{template_hash}; restore the base's files, or use the Flywheel of its training"
        )
    return plain_template.as_tokenizer(template)
