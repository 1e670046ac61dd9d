"""Which workload a request is for, and what a client may use and see: its own workloads."""

from collections.abc import Callable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase

from components.receive.client_tokens import Token
from components.schema import Json
from components.serve.body_fields import Obj
from components.serve.chat_request import ChatRequest
from components.serve.openai_error import OpenAiError
from components.serve.routes import Current
from components.serve.settings import ServeSettings

BY_WORKLOAD = frozenset({"routes", "workloads"})
"""The parts that are objects by workload; in lists, what is about one names it."""

REASONS = frozenset({"reason", "objection", "warning"})
"""What engines answered, with their addresses; operators have the status file and the log."""


class ServedWorkloads:
    """The workloads with a champion, and those that their own fallbacks answer until then."""

    def __init__(self, settings: ServeSettings, current: Current) -> None:
        self._current = current
        self._routing = settings.routing
        self.elsewhere = settings.answered_elsewhere()
        """Those that their own fallbacks answer as long as they have no champion."""

    def choose(self, chat: ChatRequest, header: Callable[[bytes], str | None], token: Token) -> str:
        """Return the workload of the first rule that matches, or that ``model`` names.

        Raises:
            OpenAiError: No rule matches, and there is no ``model`` (400).
        """
        for rule in self._routing:
            if rule.model is not None and not fnmatchcase(chat.model or "", rule.model):
                continue
            if rule.client is not None:
                is_match = fnmatchcase(token.client_id, rule.client)
            else:
                value = (
                    header(rule.header.lower().encode())
                    if rule.header is not None
                    else chat.metadata.get(rule.metadata or "")
                )
                is_match = value is not None and fnmatchcase(value, rule.equals or "")
            if is_match:
                return rule.workload
        if not chat.model:
            raise OpenAiError(
                400,
                "`model` is missing, expected the name of a workload; no routing rule matched; "
                f"known: {', '.join(self.names(token)) or 'none'}",
                param="model",
            )
        return chat.model

    def names(self, token: Token) -> list[str]:
        """Return the workloads that a token's client may use."""
        names = sorted({*self._current.routes, *self.elsewhere})
        return [name for name in names if token.may_send_for(name)]

    def describe(self, name: str) -> Obj:
        """Return a workload in OpenAI's form of a model."""
        route = self._current.routes.get(name)
        return {
            "id": name,
            "object": "model",
            "created": _unix_seconds(route.champion.since) if route else 0,
            "owned_by": "flywheel",
            "version": route.champion.version if route else None,
        }

    def unknown(self, workload: str, token: Token) -> OpenAiError:
        """Return the error of a workload that nobody serves (404)."""
        known = ", ".join(self.names(token)) or "none"
        return OpenAiError(
            404,
            f"The model {workload[:80]!r} does not exist: no workload of this name is served; "
            f"served: {known}",
            param="model",
        )


def _unix_seconds(since: str) -> int:
    return int(datetime.fromisoformat(since).timestamp())


def visible_status(status: Mapping[str, Json], token: Token) -> dict[str, Json]:
    """Return what a token's client may see of a status."""
    return {
        name: _without_reasons(_of_client(part, token, is_by_workload=name in BY_WORKLOAD))
        for name, part in status.items()
    }


def _of_client(part: Json, token: Token, *, is_by_workload: bool) -> Json:
    match part:
        case dict() if is_by_workload:
            return {name: each for name, each in part.items() if token.may_send_for(name)}
        case list():
            return [each for each in part if _is_visible(each, token)]
        case _:
            return part


def _is_visible(entry: Json, token: Token) -> bool:
    match entry:
        case {"workload": workload}:
            return token.may_send_for(workload)
        case _:
            return True


def _without_reasons(part: Json) -> Json:
    match part:
        case dict():
            return {k: _without_reasons(each) for k, each in part.items() if k not in REASONS}
        case list():
            return [_without_reasons(each) for each in part]
        case _:
            return part
