"""Kong AI Gateway: entries of its logging plugins for requests that AI Proxy answered.

The bodies are in ``ai.proxy.payload`` if ``log_payloads`` is on; older versions have the
request in ``ai.payload`` and the response in that of the plugin.
"""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import canonical, fields, openai_logs
from components.collect.sources.fields import Obj
from components.schema import Json

NAME = "kong"

PROXIES = ("proxy", "ai-proxy-advanced", "ai-proxy")
"""Where versions have what AI Proxy logged; a model that other plugins asked answers no client."""

HIT = "Hit"


def claims(value: dict[str, Json]) -> bool:
    """Claim entries of AI Proxy."""
    match value:
        case {"started_at": _, "ai": dict(logged)}:
            return any(isinstance(logged.get(name), dict) for name in PROXIES)
        case _:
            return False


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of an entry."""
    yield ParsedRecord(row, "interactions", _interaction(row.value, defaults))


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    logged = fields.require_object(value, "ai")
    name = next((name for name in PROXIES if isinstance(logged.get(name), dict)), PROXIES[0])
    proxy, at = fields.require_object(logged, name, "ai."), f"ai.{name}."
    _require_model(proxy, at)
    body, response, beside = _exchange(logged, proxy, at)
    meta = fields.optional_object(proxy, "meta", at)
    asked = fields.optional_text(meta, "request_model", f"{at}meta.")
    answered = fields.optional_text(meta, "response_model", f"{at}meta.")
    request = fields.optional_object(value, "request")
    request_id = fields.optional_text(request, "id", "request.")
    if not (response_id := response.get("id") or request_id):
        raise fields.missing("request.id", "text")
    consumer = fields.optional_object(value, "consumer")
    client = fields.optional_text(consumer, "username", "consumer.")
    kept: Obj = {"provider": meta.get("provider_name")}
    return canonical.interaction(
        defaults,
        timestamp=fields.require_number(value, "started_at") / 1000,
        request=fields.without_nulls({"model": asked}) | body,
        response=fields.without_nulls({"model": answered}) | {**response, "id": response_id},
        client_id=None if defaults.client_id else client,
        user_id=fields.optional_text(body, "user"),
        trace_id=request_id,
        duration_ms=meta.get("llm_latency"),
        metadata=fields.without_nulls(kept),
        **beside,
    )


def _require_model(proxy: Obj, at: str) -> None:
    """Raise ``WrongShapeError`` for an answer of the cache, which may be of a similar question."""
    cache = fields.optional_object(proxy, "cache", at)
    if cache.get("cache_status") == HIT:
        raise fields.unknown_value(f"{at}cache.cache_status", HIT, "an answer of the model")


def _exchange(logged: Obj, proxy: Obj, at: str) -> tuple[Obj, Obj, Obj]:
    payload = fields.optional_object(proxy, "payload", at)
    older = fields.optional_object(logged, "payload", "ai.")
    sent = payload.get("request", older.get("request"))
    answered = payload.get("response")
    if not sent or not answered:
        key = "response" if sent else "request"
        expected = "the bodies of the call: is log_payloads turned on?"
        raise fields.missing(f"{at}payload.{key}", expected)
    path = f"{at}payload.request"
    body = fields.require_object({path: fields.unpacked({path: sent}, path)}, path)
    if isinstance(answered, str) and answered.lstrip()[:1] in ("{", "["):
        answered = fields.parsed(answered, f"{at}payload.response")
    return openai_logs.exchange(body, f"{path}.", answered)
