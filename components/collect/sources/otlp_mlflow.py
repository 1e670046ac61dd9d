"""Translate the attributes of a span that MLflow exports to a collector to GenAI's."""

from components.collect.sources import fields, mlflow_traces, observations, openai_api
from components.collect.sources.fields import Obj
from components.collect.sources.otlp_calls import chat_attributes

KIND = "mlflow.spanType"
INPUT, OUTPUT = "mlflow.spanInputs", "mlflow.spanOutputs"


def to_genai(attributes: Obj) -> Obj:
    """Return the attributes with those of GenAI that they stand for; others are unchanged.

    Raises:
        WrongShapeError: Inputs or outputs are neither messages nor text.
    """
    if KIND not in attributes or "gen_ai.operation.name" in attributes:
        return attributes
    plain = _plain(attributes)
    if not isinstance(plain[KIND], str):
        return attributes
    if plain[KIND] not in mlflow_traces.CALLS:
        return {**plain, "gen_ai.operation.name": "span"}
    request: Obj = mlflow_traces.request_of(plain, "mlflow.") if INPUT in plain else {}
    outputs = plain.get(OUTPUT)
    choices = [] if outputs is None else observations.choices(outputs, OUTPUT)
    response: Obj = outputs if isinstance(outputs, dict) else {}
    used = response.get("usage") or plain.get("mlflow.chat.tokenUsage")
    counts: Obj = used if isinstance(used, dict) else {}
    translated: Obj = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.id": response.get("id"),
        "gen_ai.response.model": response.get("model") or plain.get("mlflow.llm.model"),
        "error.type": "cut" if openai_api.is_cut(outputs) else None,
        **{f"gen_ai.usage.{name}": count for name, count in counts.items()},
    }
    return plain | translated | chat_attributes(request, choices, OUTPUT)


def _plain(attributes: Obj) -> Obj:
    """Return attributes without MLflow's quotes; those of other instrumentations never had any."""
    plain = mlflow_traces.unpacked(attributes)
    return fields.without_nulls(
        {
            key: plain[key] if key.startswith("mlflow.") or isinstance(plain[key], str) else value
            for key, value in attributes.items()
        }
    ) | {KIND: plain[KIND]}
