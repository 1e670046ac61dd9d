"""Every source by its name, and the module that reads it, imported when a file needs it."""

from importlib import import_module
from typing import Protocol, cast

from pydantic import ValidationError

from components import validation_messages
from components.collect import field_map
from components.collect.field_map import FieldMap
from components.collect.source import Source, TelemetrySource
from components.collect.sources import fields
from components.schema import Json

CORE, OUTSIDE = "components.collect.sources", "components.extensions.sources"

MODULES = {
    "fivekey": f"{CORE}.fivekey",
    "feedback": f"{CORE}.feedback",
    "otlp": f"{OUTSIDE}.otlp",
    "mlflow": f"{OUTSIDE}.mlflow_traces",
    "langfuse": f"{OUTSIDE}.langfuse",
    "langsmith": f"{OUTSIDE}.langsmith",
    "litellm": f"{OUTSIDE}.litellm",
    "tensorzero": f"{OUTSIDE}.tensorzero",
    "openpipe": f"{OUTSIDE}.openpipe",
    "openai_logs": f"{CORE}.openai_logs",
    "openai_finetuning": f"{OUTSIDE}.openai_finetuning",
    "sharegpt": f"{OUTSIDE}.sharegpt",
    "bedrock": f"{OUTSIDE}.bedrock",
    "vertex": f"{OUTSIDE}.vertex",
    "helicone": f"{OUTSIDE}.helicone",
    "braintrust": f"{OUTSIDE}.braintrust",
    "weave": f"{OUTSIDE}.weave",
    "kong": f"{OUTSIDE}.kong",
}
"""All sources; the first wins when several claim equally many records."""

JOINING = frozenset({"otlp", "weave"})
"""Sources that join rows of one file, so the file is always read whole."""

APIS = (f"{OUTSIDE}.gemini_api",)
"""Converters of the requests and responses of further APIs."""


class Api(Protocol):
    """An API besides OpenAI's and Anthropic's, and its requests and responses in chat form."""

    def is_request(self, request: fields.Obj, /) -> bool:
        """Return whether a request is of this API."""
        ...

    def is_response(self, response: fields.Obj, /) -> bool:
        """Return whether a response is of this API."""
        ...

    def is_stream(self, chunks: list[Json], /) -> bool:
        """Return whether chunks are of this API."""
        ...

    def is_cut(self, response: Json, /) -> bool:
        """Return whether an answer of this API broke off."""
        ...

    def to_request(self, request: fields.Obj, at: str, /) -> fields.Obj:
        """Return a request in chat form."""
        ...

    def to_response(self, response: fields.Obj, at: str, /) -> fields.Obj:
        """Return a response in chat form."""
        ...

    def cached_usage(self, response: fields.Obj, at: str, /) -> fields.Obj | None:
        """Return the usage that chat form can't have."""
        ...

    def assemble(self, chunks: list[Json], at: str, /) -> fields.Obj:
        """Return the response that was streamed."""
        ...


class UnknownSourceError(ValueError):
    """Raised when no source has the name."""


def require_known(name: str) -> None:
    """Raise ``UnknownSourceError`` if the name is neither a source's nor a map's."""
    if not name.startswith(field_map.PREFIX):
        if name not in MODULES:
            known = ", ".join(MODULES)
            raise UnknownSourceError(f"no source is called {name!r}; there are {known}")
        return
    raw = fields.loads(name.removeprefix(field_map.PREFIX))
    try:
        FieldMap.model_validate(raw)
    except ValidationError as error:
        wrong = validation_messages.every_mistake(error, FieldMap, raw)
        raise UnknownSourceError(f"the map can't be used: {'; '.join(wrong)}") from error


def imported(name: str) -> Source:
    """Return the source with this name, which is no map's."""
    return cast("Source", import_module(MODULES[name]))


def telemetry() -> TelemetrySource:
    """Return the source of what a receiver takes as telemetry."""
    return cast("TelemetrySource", imported("otlp"))


def mapped(name: str) -> Source:
    """Return the source that a map describes."""
    return cast("Source", import_module(f"{OUTSIDE}.mapped").Mapped(name))


def apis() -> list[Api]:
    """Return the converters of further APIs."""
    return [cast("Api", import_module(module)) for module in APIS]
