"""What a client may see of the gateway's status: its own workloads, and no engine's address."""

from collections.abc import Mapping

from components.receive.client_tokens import Token
from components.schema import Json

BY_WORKLOAD = frozenset({"routes", "workloads"})
"""The parts that are objects by workload; in lists, what is about one names it."""

REASONS = frozenset({"reason", "objection", "warning"})
"""What engines answered, with their addresses; operators have the status file and the log."""


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
