"""Errors in OpenAI's form."""

from collections.abc import Mapping
from typing import Any

import orjson

from components.receive.client_tokens import Token
from components.receive.settings import RefusedError
from components.schema import Json, kind_of
from components.serve.engines.serving_engine import HttpAnswer

_TYPES = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout_error", None),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("service_unavailable_error", None),
    504: ("timeout_error", None),
}


class OpenAiError(Exception):
    """A refused or failed request, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
        is_final: bool = False,
    ) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether the same request would fail again, although clients try its status again."""
        self.allow = allow
        """The path's methods, where the request's is another one."""
        self.status = status
        self.message = message
        self.retry_after = retry_after
        kind, default = _TYPES.get(status, ("invalid_request_error", None))
        self._kind = kind if status < 500 or status in _TYPES else "server_error"
        self._param, self._code = param, code or default

    def __reduce__(self) -> tuple[Any, ...]:  # as exceptions with only a message are pickled
        return type(self).__new__, (type(self), *self.args), vars(self)

    def body(self) -> bytes:
        """Return the response's body."""
        return orjson.dumps({"error": self.to_json()})

    def to_json(self) -> dict[str, Json]:
        """Return the error itself."""
        return {
            "message": self.message,
            "type": self._kind,
            "param": self._param,
            "code": self._code,
        }

    def rename(self, names: Mapping[str, str]) -> None:
        """Call the field by its name in the request as it was sent, where ``names`` has one.

        A key also stands for the fields below it; the longest that fits counts.
        """
        param = self._param or ""
        known = max((name for name in names if param.startswith(name)), key=len, default=None)
        if known is not None:
            self._param = names[known] + param[len(known) :]
            self.message = self.message.replace(repr(param), repr(self._param))

    @classmethod
    def of(cls, refused: RefusedError) -> "OpenAiError":
        """Convert an error of the receiver."""
        return cls(refused.status, refused.reason, retry_after=refused.retry_after)


class PassedOnError(OpenAiError):
    """Another server's refusal, which the client gets as it is."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(answer.status, "another server refuses the request")
        self.answer = answer


def require_scope(token: Token, workload: str, param: str) -> None:
    """Raise ``OpenAiError`` (403) if a token is not for a workload, which ``param`` names."""
    if not token.may_send_for(workload):
        raise OpenAiError(
            403,
            f"the token {token.id} may use {', '.join(token.workloads)}, not {workload[:80]}",
            param=param,
        )


def invalid(param: str, reason: str, *, code: str = "invalid_value") -> OpenAiError:
    """Return the error (400) that a field's value is refused."""
    return OpenAiError(400, f"Invalid value for {param!r}: {reason}", param=param, code=code)


def shown(value: Json) -> str:
    """Return a value short enough for a message."""
    if value is None:
        return "missing"
    if isinstance(value, dict | list):
        return kind_of(value)
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else f"{text[:80]}..."
