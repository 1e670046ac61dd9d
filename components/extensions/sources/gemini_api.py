"""Convert Gemini's ``generateContent``: contents, function calls and candidates in chat form.

Keys are read as the REST API has them (``generationConfig``) and as Google's client for Python does
(``generation_config``).
"""

import re

from components.collect.sources import canonical, fields
from components.collect.sources.fields import Obj
from components.schema import Json

ROLES = {"model": "assistant", "function": "user"}  # results of calls were once of a role of theirs

PARAMETERS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "candidateCount": "n",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
"""The API's names of parameters, and OpenAI's."""

CHOICES = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}
"""The API's modes of calling functions, and OpenAI's choices of tools."""

FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "OTHER": "error",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
}
"""OpenAI's names of the reasons to stop, and ``error`` where the answer is of no use."""

COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
"""Keys of a schema whose whole numbers the API writes as text, as it does all of 64 bits."""

UNDERSCORE = re.compile(r"_([a-z])")
OF_ADDRESSES = str.maketrans("-_", "+/")  # Base64 as Google's client for Python dumps it


def is_request(request: Obj) -> bool:
    """Return whether a request is of this API."""
    return "contents" in request and not {"messages", "input"} & request.keys()


def is_response(response: Obj) -> bool:
    """Return whether a response is of this API."""
    blocked = response.get("promptFeedback", response.get("prompt_feedback"))
    return isinstance(response.get("candidates"), list) or isinstance(blocked, dict)


def is_stream(chunks: list[Json]) -> bool:
    """Return whether a list is what this API streams."""
    return any(isinstance(chunk, dict) and is_response(chunk) for chunk in chunks)


def to_request(request: Obj, at: str) -> Obj:
    """Return the request in chat form, or raise ``WrongShapeError``."""
    request = _camel(request)
    if (cached := request.get("cachedContent")) is not None:
        raise fields.unknown_value(
            f"{at}cachedContent", fields.as_text(cached), "all of the prompt in the request"
        )
    config = _camel(fields.optional_object(request, "generationConfig", at))
    parameters: Obj = {new: config.get(old) for old, new in PARAMETERS.items()}
    model = fields.optional_text(request, "model", at)
    return canonical.request(
        _system(request.get("systemInstruction"), f"{at}systemInstruction")
        + _messages(_listed(request.get("contents")), f"{at}contents"),
        {
            "model": model_name(model) if model else None,
            **parameters,
            "response_format": _response_format(config),
            "tools": _tools(fields.optional_array(request, "tools", at), f"{at}tools") or None,
            "tool_choice": _tool_choice(request.get("toolConfig")),
        },
    )


def model_name(model: str) -> str:
    """Return the last part of a model's path, which begins with a project or a publisher."""
    return model.rpartition("/")[2]


def to_response(response: Obj, at: str) -> Obj:
    """Return the response in chat form; raise ``WrongShapeError`` if the prompt was blocked."""
    response = _camel(response)
    feedback = _camel(fields.optional_object(response, "promptFeedback", at))
    candidates = fields.optional_array(response, "candidates", at)
    if not candidates and feedback.get("blockReason") is not None:
        reason = fields.as_text(feedback["blockReason"])
        expected = "an answer: the prompt was blocked"
        raise fields.unknown_value(f"{at}promptFeedback.blockReason", reason, expected)
    if not candidates:
        raise fields.missing(f"{at}candidates[0]", "a candidate")
    used = _camel(fields.optional_object(response, "usageMetadata", at))
    return canonical.response(
        [
            _choice(_camel(candidate), n, path)
            for n, (path, candidate) in enumerate(fields.objects(candidates, f"{at}candidates"))
        ],
        response_id=response.get("responseId"),
        model=response.get("modelVersion"),
        created=response.get("createTime"),
        usage=canonical.usage(used.get("promptTokenCount"), _answered(used)),
    )


def is_cut(response: Json) -> bool:
    """Return whether an answer has no reason to stop: its stream broke off."""
    match response:
        case {"candidates": [dict(first), *_]}:
            return _camel(first).get("finishReason") in (None, "FINISH_REASON_UNSPECIFIED")
        case _:
            return False


def cached_usage(response: Obj, at: str) -> Obj | None:
    """Return the usage of a response whose prompt was cached in part."""
    used = _camel(fields.optional_object(_camel(response), "usageMetadata", at))
    cached = used.get("cachedContentTokenCount")
    return canonical.cached_usage(used.get("promptTokenCount"), _answered(used), cached, None)


def assemble(chunks: list[Json], at: str) -> Obj:
    """Return the response that was streamed: parts one after the other, else the last value."""
    whole: Obj = {}
    candidates: dict[int, Obj] = {}
    for path, raw in fields.objects(chunks, at):
        chunk = _camel(raw)
        if "error" in chunk:
            raise fields.wrong_type(f"{path}error", chunk["error"], "a part of an answer")
        pieces = fields.optional_array(chunk, "candidates", path)
        for piece_path, piece in fields.objects(pieces, f"{path}candidates"):
            index = fields.require_whole_number(piece, "index", piece_path, 0)
            before = candidates.get(index, {})
            parts = [*_parts(before, piece_path), *_parts(piece, piece_path)]
            content: Json = {"role": "model", "parts": parts}
            candidates[index] = {**before, **_camel(piece), "content": content}
        whole |= chunk
    return {**whole, "candidates": [candidates[index] for index in sorted(candidates)]}


def _camel(holder: Obj) -> Obj:
    """Return an object of the API with its own keys as the REST API has them, without nulls."""
    known = fields.without_nulls(holder)
    return {UNDERSCORE.sub(lambda m: m[1].upper(), key): known[key] for key in known}


def _listed(value: Json) -> Json:
    """Return an array; the API also takes one element in its place."""
    return [value] if isinstance(value, dict) else value


def _parts(content: Obj, at: str) -> list[Json]:
    inner = fields.optional_object(content, "content", at)
    return fields.optional_array({"parts": _listed(inner.get("parts"))}, "parts", f"{at}content.")


def _system(value: Json, at: str) -> list[Json]:
    if value is None or isinstance(value, str):
        return [canonical.text_message("system", value)] if value else []
    holder = fields.require_object({at: value}, at)
    parts = fields.optional_array({"parts": _listed(holder.get("parts"))}, "parts", f"{at}.")
    texts: list[Obj] = [
        {"type": "text", "text": fields.require_text(part, "text", path)}
        for path, part in fields.objects(parts, f"{at}.parts")
    ]
    return [canonical.message("system", texts, [], [])] if texts else []


def _messages(contents: Json, at: str) -> list[Json]:
    if isinstance(contents, str):
        return [canonical.text_message("user", contents)]
    messages: list[Json] = []
    open_calls: list[Obj] = []  # those without a result, in order
    count = 0
    listed = _grouped(fields.require_array({at: contents}, at))
    for path, content in fields.objects(listed, at):
        role = fields.optional_text(content, "role", path) or "user"
        parts = fields.require_array({"parts": _listed(content.get("parts"))}, "parts", path)
        results, others = list[tuple[str, Obj]](), list[tuple[str, Obj]]()
        for part_path, raw in fields.objects(parts, f"{path}parts"):
            part = _camel(raw)
            (results if "functionResponse" in part else others).append((part_path, part))
        messages += [_result(part, part_path, open_calls) for part_path, part in results]
        if others or not results:
            message = _message(ROLES.get(role, role), others)
            for _, call in fields.objects(fields.optional_array(message, "tool_calls"), path):
                call.setdefault("id", f"call_{count}")
                count += 1
                open_calls.append(call)
            messages.append(message)
    return messages


def _grouped(contents: list[Json]) -> list[Json]:
    """Return contents; parts without one, which Google's clients take, are together one."""
    grouped: list[Json] = []
    parts: list[Json] | None = None
    for content in contents:
        part: Json = {"text": content} if isinstance(content, str) else content
        if not isinstance(part, dict) or {"role", "parts"} & part.keys():
            parts = None
            grouped.append(content)
        elif parts is None:
            parts = [part]
            grouped.append({"role": "user", "parts": parts})
        else:
            parts.append(part)
    return grouped


def _result(part: Obj, at: str, open_calls: list[Obj]) -> Obj:
    """Return the message of a result, with the id of the call that it is of.

    Most calls have none: then it is of the first call of its name without a result.
    """
    result = fields.require_object(part, "functionResponse", at)
    name = fields.require_text(result, "name", f"{at}functionResponse.")
    call_id = fields.optional_text(result, "id", f"{at}functionResponse.")
    for call in open_calls:
        function = fields.require_object(call, "function")
        if call["id"] == call_id or (call_id is None and function["name"] == name):
            open_calls.remove(call)
            call_id = fields.require_text(call, "id")
            break
    message = canonical.tool_result(call_id, result.get("response"))
    return fields.without_nulls({**message, "name": name})


def _message(role: str, parts: list[tuple[str, Obj]]) -> Obj:
    texts, calls, thoughts = list[Obj](), list[Obj](), list[Json]()
    for at, part in parts:
        match part:
            case {"functionCall": call}:
                calls.append(_call(fields.require_object({"call": call}, "call"), at))
            case {"text": str(text), "thought": True}:
                thoughts.append(text)
            case {"text": str(text)}:
                last = texts[-1] if texts and role == "assistant" else {}
                match last:
                    case {"type": "text", "text": str(before)}:
                        last["text"] = before + text
                    case _:
                        texts.append({"type": "text", "text": text})
            case known if known.keys() - {"thought", "thoughtSignature"}:
                texts.append(_file(known))
            case _:  # a signature alone
                continue
    return canonical.message(role, texts, calls, thoughts)


def _call(call: Obj, at: str) -> Obj:
    if "partialArgs" in (call := _camel(call)):
        raise fields.wrong_type(f"{at}functionCall.partialArgs", call["partialArgs"], "`args`")
    name = fields.require_text(call, "name", f"{at}functionCall.")
    arguments = fields.optional_object(call, "args", f"{at}functionCall.")
    return canonical.tool_call(name, arguments, call.get("id"))


def _file(part: Obj) -> Obj:
    match {key: _camel(each) if isinstance(each, dict) else each for key, each in part.items()}:
        case {"inlineData": {"data": str(content), "mimeType": str(form)}}:
            content = content.translate(OF_ADDRESSES)
            if form.startswith("audio/"):
                audio: Json = {"data": content, "format": form.rpartition("/")[2]}
                return {"type": "input_audio", "input_audio": audio}
            url = f"data:{form};base64,{content}"
        case {"fileData": {"fileUri": str(url), "mimeType": str(form)}}:
            pass
        case _:
            return part
    is_image = form.startswith("image/")
    return {"type": "image_url", "image_url": {"url": url}} if is_image else part


def _tools(tools: list[Json], at: str) -> list[Json]:
    listed: list[Json] = []
    for path, tool in fields.objects(tools, at):
        declared = fields.optional_array(_camel(tool), "functionDeclarations", path)
        for function_path, function in fields.objects(declared, f"{path}functionDeclarations"):
            known = _camel(function)
            name = fields.require_text(known, "name", function_path)
            schema = known.get("parametersJsonSchema")
            parameters = _schema(known.get("parameters")) if schema is None else schema
            listed.append(canonical.tool(name, known.get("description"), parameters))
    return listed


def _schema(value: Json) -> Json:
    if not isinstance(value, dict):
        return value
    schema: Obj = {}
    for key, each in _camel(value).items():
        match key, each:
            case "type", str():
                schema[key] = each.lower()
            case (("properties" | "defs" | "$defs"), dict()):
                schema[key] = {name: _schema(inner) for name, inner in each.items()}
            case (("anyOf" | "prefixItems"), list()):
                schema[key] = [_schema(inner) for inner in each]
            case (("items" | "additionalProperties"), dict()):
                schema[key] = _schema(each)
            case _, str() if key in COUNTS and each.isdecimal():
                schema[key] = int(each)
            case _:
                schema[key] = each
    return schema


def _tool_choice(config: Json) -> Json:
    match _camel(config) if isinstance(config, dict) else None:
        case {"functionCallingConfig": dict(calling)}:
            known = _camel(calling)
        case _:
            return None
    match known:
        case {"mode": "ANY", "allowedFunctionNames": [str(name)]}:
            return {"type": "function", "function": {"name": name}}
        case {"mode": str(mode)}:
            return CHOICES.get(mode.upper())
        case _:
            return None


def _response_format(config: Obj) -> Json:
    if config.get("responseMimeType") != "application/json":
        return None
    schema = config.get("responseJsonSchema") or _schema(config.get("responseSchema"))
    if schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}


def _choice(candidate: Obj, index: int, at: str) -> Obj:
    parts = [
        (path, _camel(part))
        for path, part in fields.objects(_parts(candidate, at), f"{at}content.parts")
    ]
    message = _message("assistant", parts)
    reason = candidate.get("finishReason")
    finish = FINISH.get(reason, reason) if isinstance(reason, str) else None
    if finish == "stop" and message.get("tool_calls"):
        finish = "tool_calls"
    return canonical.choice(message, finish, index)


def _answered(used: Obj) -> Json:
    """Return the tokens of an answer; those of its thoughts are counted, and paid for, apart."""
    return canonical.total(used.get("candidatesTokenCount"), used.get("thoughtsTokenCount"))
