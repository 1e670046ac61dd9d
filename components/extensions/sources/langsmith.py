"""LangSmith: exported runs as interactions, their feedback as feedback.

A run of a model has the input and output of LangChain's chat models (messages that LangChain
serialized, generations) or of the wrapped client (the request and the response). ``feedback_stats``
is a summary of each key; rows of ``Feedback`` (``Client.list_feedback``) say who thought what.
"""

from collections.abc import Iterator

from components.collect.source import (
    Defaults,
    ParsedRecord,
    RejectedRecord,
    SourceRecord,
    SourceRow,
)
from components.collect.sources import anthropic_messages, canonical, feedback, fields, openai_api
from components.collect.sources.fields import Obj, WrongShapeError
from components.extensions.sources import litellm, observations
from components.extensions.sources.otlp_calls import chat_attributes
from components.extensions.sources.otlp_messages import COMPLETION, PROMPT
from components.schema import Json

NAME = "langsmith"

RUN = {"id", "run_type", "start_time", "inputs"}
FEEDBACK = {"id", "run_id", "key", "score"}
CALL = "llm"
CONVERSATIONS = ("session_id", "thread_id", "conversation_id")
"""Keys of a run's metadata that LangSmith joins threads by."""

UNSENT = ("_type", "model_name")  # keys of LangChain's parameters that no API knows
SENT = ("role", "type", "content", "name", "tool_call_id")  # those of its messages that are sent

KIND = "langsmith.span.kind"
METADATA = "langsmith.metadata."

NAMES = {
    **{f"{METADATA}{name}": "gen_ai.conversation.id" for name in reversed(CONVERSATIONS)},
    f"{METADATA}user_id": "user.id",
    f"{METADATA}workload_id": "flywheel.workload_id",
}


def claims(value: dict[str, Json]) -> bool:
    """Claim runs and feedback."""
    return value.keys() >= RUN or value.keys() >= FEEDBACK


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the records of a run and of the runs in it, or of feedback."""
    if "run_type" not in row.value:
        yield from _feedback(row, defaults)
        return
    records = [record for run in _runs(row) for record in _of_run(run, defaults)]
    if not records:
        kind = fields.require_text(row.value, "run_type")
        raise fields.unknown_value(
            "run_type", kind, f"{CALL}: only calls of a model are interactions"
        )
    yield from records


def _runs(row: SourceRow) -> Iterator[SourceRow]:
    runs = [row.value]
    while runs:
        run = runs.pop()
        children = fields.optional_array(run, "child_runs")
        runs += [child for _, child in fields.objects(children, "child_runs")]
        own: Obj = {key: value for key, value in run.items() if key != "child_runs"}
        yield fields.part(row, own) if children or run is not row.value else row


def _of_run(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    try:
        if row.value.get("run_type") == CALL:
            yield ParsedRecord(row, "interactions", _interaction(row.value, defaults))
    except WrongShapeError as error:
        yield RejectedRecord(row, str(error))
    if row.value.get("run_type") == CALL or not row.value.get("parent_run_id"):
        yield from _statistics(row, defaults)


def _statistics(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield what people thought of a call, or, if it is the trace's first run, of the trace."""
    try:
        stats = fields.unpacked_object(row.value, "feedback_stats")
        for key in stats:
            yield from _key_statistics(row, key, stats, defaults)
    except WrongShapeError as error:
        yield RejectedRecord(row, str(error))


def _interaction(run: Obj, defaults: Defaults) -> Obj:
    inputs = fields.unpacked_object(run, "inputs")
    outputs = answered(fields.unpacked_object(run, "outputs"))
    failure = fields.optional_text(run, "error")
    if failure is not None and not outputs:
        raise fields.wrong_type("error", failure, "a response")
    extra = fields.unpacked_object(run, "extra")
    metadata = fields.optional_object(extra, "metadata", "extra.")
    model = metadata.get("ls_model_name")
    choices, is_cut = choices_of(outputs)
    run_id = fields.require_text(run, "id")
    return canonical.interaction(
        defaults,
        timestamp=run.get("start_time"),
        request=request_of(inputs, outputs, extra, model),
        response=canonical.response(
            choices,
            response_id=run_id,
            model=outputs.get("model") or model,
            usage=_usage(run, outputs),
        ),
        workload_id=fields.optional_text(metadata, "workload_id", "extra.metadata."),
        conversation_id=next(
            (fields.as_text(metadata[key]) for key in CONVERSATIONS if metadata.get(key)), None
        ),
        user_id=fields.optional_text(metadata, "user_id", "extra.metadata."),
        trace_id=fields.optional_text(run, "trace_id") or run_id,
        duration_ms=canonical.duration_ms(run, "start_time", "end_time"),
        finish=canonical.CUT if failure is not None or is_cut else None,
        usage=_cached_usage(run, outputs),
        metadata=metadata | {key: run[key] for key in ("name", "tags") if run.get(key)},
    )


def answered(outputs: Obj) -> Obj:
    """Return a run's outputs without what LangChain adds for calls that gave nothing."""
    match outputs:
        case {"generations": list(generations)}:
            written = [each for each in generations if each]
            return {**outputs, "generations": written} if written else {}
        case _:
            return outputs


def request_of(inputs: Obj, outputs: Obj, extra: Obj, model: Json) -> Obj:
    """Return the request of a run in chat form, or raise ``WrongShapeError``."""
    if litellm.claims(inputs):  # LiteLLM's own callback logs its payload
        return observations.request(litellm.request_of(inputs, outputs), "inputs")
    parameters = fields.optional_object(extra, "invocation_params", "extra.")
    known: Obj = {"model": model or parameters.get("model_name"), **parameters}
    sent = fields.without_nulls({key: known[key] for key in known if key not in UNSENT})
    match inputs:
        case {"messages": [list(), *_] as batch}:
            messages = fields.require_array(
                {"messages": _only(batch, "inputs.messages")}, "messages"
            )
        case {"messages": list(messages)}:
            pass
        case {"prompts": list(prompts)}:
            if any("message" in generation for _, generation in _generations(outputs)):
                raise WrongShapeError(
                    "`inputs.prompts` are the messages of a chat as one text, expected `messages`"
                )
            prompt = _only(prompts, "inputs.prompts")
            return sent | observations.request(prompt, "inputs.prompts[0]")
        case _:
            return observations.request(inputs, "inputs")
    flat = [_message(message) for message in messages]
    return observations.request({**sent, **inputs, "messages": flat}, "inputs")


def _only(batch: list[Json], at: str) -> Json:
    if len(batch) != 1:
        raise WrongShapeError(f"`{at}` has {len(batch)} elements, expected those of one call")
    return batch[0]


def _message(value: Json) -> Json:
    message = _unwrapped(value)
    if message is None:
        return value
    more = fields.optional_object(message, "additional_kwargs")
    sent: Obj = {"content": None}
    sent |= {key: message[key] for key in SENT if message.get(key) is not None}
    calls: list[Json] = []
    for key in ("tool_calls", "invalid_tool_calls"):  # of the latter, the arguments are no JSON
        for at, call in fields.objects(fields.optional_array(message, key), key):
            name = fields.require_text(call, "name", at)
            calls.append(canonical.tool_call(name, call.get("args"), call.get("id")))
    older: Obj = {key: more[key] for key in ("tool_calls", "function_call") if more.get(key)}
    newer: Obj = {"tool_calls": calls}
    return sent | (newer if calls else older)


def _unwrapped(value: Json) -> Obj | None:
    """Return the fields of a message that LangChain serialized, ``None`` for any other."""
    match value:
        case {"lc": _, "id": [*_, str(name)], "kwargs": dict(message)}:
            kind = message.get("type") or name
        case {"type": str(name), "data": dict(message)}:
            kind = message.get("type") or name
        case {"type": str(kind), "content": _, "additional_kwargs": _}:
            message = value
        case _:
            return None
    plain = str(kind).removesuffix("Chunk").removesuffix("Message").lower()
    return {**message, "type": plain}


def choices_of(outputs: Obj) -> tuple[list[Json], bool]:
    """Return the choices of a run's outputs, and whether they say that the answer broke off."""
    match outputs:
        case {"generations": [_, *_]}:
            return _generated(outputs), False
        case {"choices": [_, *_]}:
            # The wrapped client logs what it streamed as one last chunk.
            is_cut = openai_api.is_cut({**outputs, "object": "chat.completion"})
            return canonical.choices(outputs, "outputs."), is_cut
        case {"messages": list(messages)}:
            return observations.choices([_message(m) for m in messages], "outputs.messages"), False
        case {"output": output} if "id" not in outputs:
            return observations.choices(_message(output), "outputs.output"), False
        case _:
            choices = observations.choices(_message(outputs), "outputs")
            return choices, openai_api.is_cut(outputs)


def _generations(outputs: Obj) -> Iterator[tuple[str, Obj]]:
    generations = fields.optional_array(outputs, "generations", "outputs.")
    if generations and isinstance(generations[0], list):
        only: Obj = {"generations": _only(generations, "outputs.generations")}
        generations = fields.require_array(only, "generations", "outputs.")
    return fields.objects(generations, "outputs.generations")


def _generated(outputs: Obj) -> list[Json]:
    choices: list[Json] = []
    for at, generation in _generations(outputs):
        written = generation.get("message")
        answer = observations.answer(_message(written) or generation.get("text"), f"{at}message")
        message = _unwrapped(written) or {}
        known = fields.optional_object(generation, "generation_info", at)
        known = known | fields.optional_object(message, "response_metadata", f"{at}message.")
        reasons = (known.get(key) for key in ("finish_reason", "stop_reason", "stopReason"))
        reason = next((reason.lower() for reason in reasons if isinstance(reason, str)), None)
        choice = canonical.answer(answer)
        if reason is not None:
            choice["finish_reason"] = anthropic_messages.FINISH.get(reason, reason)
        choices.append({**choice, "index": len(choices)})
    return choices


def _usage(run: Obj, outputs: Obj) -> Obj | None:
    used = fields.optional_object(outputs, "usage_metadata", "outputs.")
    return canonical.usage(
        run.get("prompt_tokens") or used.get("input_tokens"),
        run.get("completion_tokens") or used.get("output_tokens"),
    )


def _cached_usage(run: Obj, outputs: Obj) -> Obj | None:
    counts = _usage(run, outputs) or {}
    tokens = counts.get("prompt_tokens"), counts.get("completion_tokens")
    match outputs.get("usage_metadata"):
        case {"input_token_details": dict(details)}:
            read, written = details.get("cache_read"), details.get("cache_creation")
            return canonical.cached_usage(*tokens, read, written)
        case _:
            return None


def _key_statistics(
    row: SourceRow, key: str, stats: Obj, defaults: Defaults
) -> Iterator[SourceRecord]:
    """Yield the mean of a key's scores, or its only value, as one outcome."""
    at = f"feedback_stats.{key}."
    known = fields.optional_object(stats, key, "feedback_stats.")
    values = fields.optional_object(known, "values", at)
    if known.get("avg") is not None:
        value: Json = fields.require_number(known, "avg", at)
    elif len(values) > 1:
        raise WrongShapeError(
            f"`{at}values` has {len(values)} values, expected one; the feedback itself "
            "(Client.list_feedback) says who gave which"
        )
    elif not (value := next(iter(values), None)):
        return
    record = canonical.feedback(
        defaults,
        timestamp=row.value.get("end_time") or row.value.get("start_time"),
        actor_id="unknown",
        kind="outcome",
        value={"name": key, "value": value},
        target=("target_id", fields.require_text(row.value, "id")),
        comment="\n".join(_comments(known, at)) or None,
        metadata={"n": known["n"]} if known.get("n") is not None else None,
    )
    yield ParsedRecord(row, "feedback", record)


def _comments(known: Obj, at: str) -> Iterator[str]:
    for comment in fields.optional_array(known, "comments", at):
        if isinstance(comment, str):
            yield comment


def _feedback(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    value = row.value
    comment = fields.optional_text(value, "comment")
    signals = [*_signals(value)] or ([("comment", comment)] if comment else [])
    if not signals:
        raise fields.missing("score", "a number, or a value, a comment or a correction")
    source = fields.optional_object(value, "feedback_source")
    actor = (
        fields.optional_text(source, "user_id", "feedback_source.")
        or fields.optional_text(source, "type", "feedback_source.")
        or "unknown"
    )
    for kind, signal in signals:
        record = canonical.feedback(
            defaults,
            timestamp=value.get("modified_at") or value.get("created_at"),
            actor_id=actor,
            kind=kind,
            value=signal,
            # A call of a model, or the run of the application that the trace is of.
            target=("target_id", fields.require_text(value, "run_id")),
            comment=comment if kind != "comment" else None,
        )
        yield ParsedRecord(row, "feedback", record)


def _signals(value: Obj) -> Iterator[tuple[str, Json]]:
    key = fields.require_text(value, "key")
    score = value.get("value") if value.get("score") is None else value["score"]
    if isinstance(score, bool | str):
        yield feedback.score_signal(key, score)
    elif score is not None and not isinstance(score, dict):
        field = "value" if value.get("score") is None else "score"
        yield feedback.score_signal(key, fields.require_number(value, field))
    correction = _message(value.get("correction"))
    # Another object corrects what an evaluator thought, not the answer.
    if isinstance(correction, str) or (isinstance(correction, dict) and "content" in correction):
        yield "correction", observations.answer(correction, "correction")


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: Inputs or outputs are neither messages nor text.
    """
    kind = attributes.get(KIND)
    if not isinstance(kind, str):
        return attributes
    if kind.lower() != CALL:  # among them prompts, whose operation it calls "chat"
        return {**attributes, "gen_ai.operation.name": kind.lower()}
    inputs, outputs = (_object(attributes, key) for key in (PROMPT, COMPLETION))
    if inputs is None:  # another instrumentation's attributes, with the kind that LangSmith shows
        return attributes
    outputs = answered(outputs or {})
    request = request_of(inputs, outputs, {}, attributes.get("gen_ai.request.model"))
    choices, is_cut = choices_of(outputs) if outputs else ([], False)
    translated = chat_attributes(request, choices, COMPLETION)
    if is_cut:
        translated["error.type"] = "cut"
    named = {new: attributes[old] for old, new in NAMES.items() if old in attributes}
    others = {key: attributes[key] for key in attributes if key not in (PROMPT, COMPLETION)}
    return named | others | translated


def _object(attributes: Obj, key: str) -> Obj | None:
    text = attributes.get(key)
    value: Json = fields.loads(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else None
