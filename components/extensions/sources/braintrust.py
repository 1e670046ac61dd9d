"""Braintrust: spans of project logs and experiments, with their scores.

They come from the export of its pages as JSON, from its API (``events``) or from BTQL (``data``).
A span of a model has the input and output as Braintrust's SDK logs them: OpenAI's messages and
choices, items of the Responses API, Anthropic's messages with the system prompt after them, or
Gemini's contents; or what an application logged in their place.
"""

from collections.abc import Iterator

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import canonical, feedback, fields, openai_api, openai_logs
from components.collect.sources.canonical import Target
from components.collect.sources.fields import Obj, WrongShapeError
from components.extensions.sources import observations
from components.schema import Json

NAME = "braintrust"

SPAN = {"id", "created", "span_id", "root_span_id", "span_attributes"}
PAGES = ("events", "data")
CALL = "llm"
JUDGE = "scorer"

PARAMETERS = (
    *("model", "instructions", "temperature", "top_p", "top_k", "seed", "n", "stop"),
    *("stop_sequences", "max_tokens", "max_completion_tokens", "max_output_tokens"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"),
    *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
    *("response_format", "text", "reasoning", "reasoning_effort", "verbosity", "thinking"),
    *("stream", "stream_options", "service_tier", "previous_response_id", "conversation"),
)
"""Keys of a span's metadata that the SDK took from the request."""

RESULTS = ("id", "model", "status", "created_at", "incomplete_details")
"""Those that it took from a response of the Responses API, of which the output has only items."""

CONVERSATIONS = ("conversation_id", "session_id", "thread_id")
"""Keys of the metadata that applications choose."""

ITEMS = ("message", "function_call", "custom_tool_call", "reasoning")
"""Types of items that the Responses API answers with."""

WRITTEN = tuple(f"prompt_cache_creation{life}_tokens" for life in ("", "_5m", "_1h"))


def claims(value: dict[str, Json]) -> bool:
    """Claim spans, and pages of them."""
    if value.keys() >= SPAN:
        return True
    return any(_first(value, key).keys() >= SPAN for key in PAGES)


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the interaction of a span of a model, and the scores of it or of a whole trace."""
    for key in PAGES:
        if "span_id" not in row.value and key in row.value:
            spans = fields.require_array(row.value, key)
            if not spans:
                raise fields.missing(f"{key}[0]", "a span")
            yield from read(
                [fields.part(row, span) for _, span in fields.objects(spans, key)], defaults
            )
            return
    attributes = fields.unpacked_object(row.value, "span_attributes")
    if attributes.get("purpose") == JUDGE:
        raise fields.unknown_value("span_attributes.purpose", JUDGE, "a call of the application")
    if attributes.get("type") == CALL:
        interaction = _interaction(row.value, defaults)
        yield ParsedRecord(row, "interactions", interaction)
        response = fields.require_object(interaction, "response")
        target: Target = ("response_id", fields.require_text(response, "id"))
        yield from _said(row, target, defaults, corrects=True)
        return
    target = ("target_id", fields.require_text(row.value, "root_span_id"))
    is_first = row.value.get("span_id") == target[1] or not row.value.get("span_parents", True)
    scores = [*_said(row, target, defaults, corrects=False)] if is_first else []
    if not scores:
        kind = fields.as_text(attributes.get("type"))
        expected = f"{CALL}: only calls of a model are interactions"
        raise fields.unknown_value("span_attributes.type", kind, expected)
    yield from scores


def _first(value: Obj, key: str) -> Obj:
    match value.get(key):
        case [dict(first), *_]:
            return first
        case _:
            return {}


def _interaction(value: Obj, defaults: Defaults) -> Obj:
    metadata = fields.unpacked_object(value, "metadata")
    output, error = value.get("output"), value.get("error")
    if output is None:
        said = f": {fields.as_text(error)[: fields.MAX_SHOWN]}" if error is not None else ""
        raise fields.missing("output", f"an answer{said}")
    request, response, beside = _exchange(value.get("input"), output, metadata)
    if error is not None:
        beside["finish"] = canonical.CUT
    metrics = fields.unpacked_object(value, "metrics")
    tokens = metrics.get("prompt_tokens"), metrics.get("completion_tokens")
    written = canonical.total(*(metrics.get(key) for key in WRITTEN))
    known: Obj = {key: metadata[key] for key in metadata if key not in (*PARAMETERS, *RESULTS)}
    return canonical.interaction(
        defaults,
        timestamp=value.get("created"),
        request=request,
        response=canonical.response(
            fields.require_array(response, "choices"),
            response_id=response.get("id") or fields.require_text(value, "id"),
            model=metadata.get("model") or response.get("model"),
            usage=canonical.usage(*tokens),
        ),
        workload_id=fields.optional_text(metadata, "workload_id", "metadata."),
        conversation_id=next((metadata[key] for key in CONVERSATIONS if metadata.get(key)), None),
        user_id=fields.optional_text(metadata, "user_id", "metadata."),
        trace_id=fields.optional_text(value, "root_span_id"),
        duration_ms=canonical.milliseconds(metrics.get("start"), metrics.get("end")),
        usage=canonical.cached_usage(*tokens, metrics.get("prompt_cached_tokens"), written),
        metadata=known | ({"tags": value["tags"]} if value.get("tags") else {}),
        finish=beside.get("finish"),
    )


def _exchange(asked: Json, output: Json, metadata: Obj) -> tuple[Obj, Obj, Obj]:
    sent: Obj = {key: metadata[key] for key in PARAMETERS if metadata.get(key) is not None}
    match asked:
        case {"contents": _} if isinstance(output, dict | list):
            return openai_logs.exchange(_of_gemini(asked, metadata), "input.", output)
        case list() | str() if _are_items(output):
            known: Obj = {key: metadata.get(key) for key in RESULTS}
            answered: Obj = {**known, "id": metadata.get("id") or "", "output": output}
            return openai_logs.exchange({**sent, "input": asked}, "", answered)
        case _:
            is_anthropic = metadata.get("provider") == "anthropic"
            body = {**sent, **_messages(asked, is_anthropic)} if isinstance(asked, list) else asked
            written: Json = {"object": "chat.completion", "choices": output}
            answer = written if _are_choices(output) else output
            request = sent | observations.request(body, "input")
            response: Obj = {"choices": observations.choices(answer, "output")}
            if isinstance(answer, dict) and isinstance(answer.get("id"), str):
                response["id"] = answer["id"]
            cut = canonical.CUT if openai_api.is_cut(answer) else None
            return request, response, {"finish": cut}


def _messages(asked: list[Json], is_anthropic: bool) -> Obj:
    """Return messages, and the system prompt where Anthropic's API has it: the SDK puts it last."""
    match asked:
        case [*messages, {"role": "system", "content": prompt}] if is_anthropic:
            return {"system": prompt, "messages": messages}
        case _:
            return {"messages": asked}


def _of_gemini(asked: Obj, metadata: Obj) -> Obj:
    """Return a call of Google's client as a request of the API.

    Its tools are in the metadata, in older versions of Braintrust's SDK in the ``config``.
    """
    config = fields.optional_object(asked, "config", "input.")
    return {
        "model": asked.get("model"),
        "contents": asked["contents"],
        "systemInstruction": config.get("system_instruction") or config.get("systemInstruction"),
        "toolConfig": config.get("tool_config") or config.get("toolConfig"),
        "tools": config.get("tools") or metadata.get("tools"),
        "generationConfig": config,
    }


def _are_choices(output: Json) -> bool:
    return (
        isinstance(output, list)
        and bool(output)
        and all(isinstance(each, dict) and "message" in each for each in output)
    )


def _are_items(output: Json) -> bool:
    return isinstance(output, list) and any(
        isinstance(each, dict) and each.get("type") in ITEMS and "message" not in each
        for each in output
    )


def _said(
    row: SourceRow, target: Target, defaults: Defaults, *, corrects: bool
) -> Iterator[SourceRecord]:
    try:
        signals = [*_scores(fields.unpacked_object(row.value, "scores"))]
        if corrects and row.value.get("expected") is not None:
            signals.append(("correction", observations.answer(row.value["expected"], "expected")))
        for kind, signal in signals:
            record = canonical.feedback(
                defaults,
                timestamp=row.value.get("created"),
                actor_id="unknown",
                kind=kind,
                value=signal,
                target=target,
            )
            yield ParsedRecord(row, "feedback", record)
    except WrongShapeError as error:
        yield RejectedRecord(row, str(error))


def _scores(scores: Obj) -> Iterator[tuple[str, Json]]:
    for name in scores:
        if scores[name] is not None:
            score = scores[name]
            is_boolean = isinstance(score, bool)
            number = score if is_boolean else fields.require_number(scores, name, "scores.")
            yield feedback.score_signal(name, number)
