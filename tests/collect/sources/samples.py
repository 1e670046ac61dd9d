"""One good record or more of every source, for tests that go through all of them."""

import json
from typing import cast

from components.collect.record import Source
from components.collect.sources import (
    langfuse,
    mlflow_traces,
    openai_finetuning,
    openai_logs,
    openpipe,
    otlp,
    tensorzero,
)
from components.schema import Json
from tests import logs
from tests.collect.sources import (
    test_langfuse,
    test_mlflow_traces,
    test_openai_logs,
    test_openpipe,
    test_otlp,
    test_tensorzero,
)

QUESTION: Json = {"role": "user", "content": "What is the weather in Rome?"}

SAMPLES: list[tuple[Source, dict[str, Json]]] = [
    (openai_logs, {"request": test_openai_logs.REQUEST, "response": test_openai_logs.completion()}),
    (openai_logs, {"request": test_openai_logs.REQUEST, "response": [*test_openai_logs.CALLING]}),
    (openai_logs, test_openai_logs.completion(messages=[QUESTION], metadata={"a": "b"})),
    (
        openai_logs,
        {
            "request": {"model": "gpt-5", "input": "Rome?", "instructions": "Be brief."},
            "response": test_openai_logs.RESPONSE.model_dump(mode="json"),
        },
    ),
    (openai_finetuning, {"messages": [QUESTION, logs.say("Sunny.")], "tools": [logs.WEATHER]}),
    (
        openai_finetuning,
        {
            "input": {"messages": [QUESTION], "tools": [logs.WEATHER]},
            "preferred_output": [logs.say("Sunny.")],
            "non_preferred_output": [logs.call("weather", '{"city": "Rome"}')],
        },
    ),
    (
        otlp,
        test_otlp.span(
            test_otlp.text("gen_ai.input.messages", json.dumps(test_otlp.ASKED)),
            test_otlp.attribute("gen_ai.output.messages", test_otlp.typed(test_otlp.ANSWERED)),
            test_otlp.text("gen_ai.response.id", "chatcmpl-1"),
            test_otlp.attribute("gen_ai.usage.input_tokens", {"intValue": "52"}),
        ),
    ),
    (
        otlp,
        test_otlp.span(
            test_otlp.text("gen_ai.prompt.0.content", "Rome?"),
            test_otlp.text("gen_ai.completion.0.content", "Sunny."),
            test_otlp.text("llm.request.functions.0.name", "weather"),
        ),
    ),
    (
        otlp,
        {
            "resourceLogs": [
                test_otlp.log(name, body)["resourceLogs"][0]  # pyright: ignore
                for name, body in test_otlp.OLDER
            ]
        },
    ),
    (
        otlp,
        test_otlp.log(
            "gen_ai.evaluation.user_feedback",
            {"comment": "Fine."},
            test_otlp.attribute("gen_ai.evaluation.score", {"doubleValue": 0.5}),
        ),
    ),
    (
        mlflow_traces,
        test_mlflow_traces.trace(
            test_mlflow_traces.span(1),
            test_mlflow_traces.span(2),
            assessments=[test_mlflow_traces.assessment()],
        ),
    ),
    (langfuse, test_langfuse.observation(tool_definitions={"weather": "{}"})),
    (langfuse, test_langfuse.score()),
    (langfuse, test_langfuse.score(data_type="CORRECTION", value='{"content": "Rainy."}')),
    (tensorzero, test_tensorzero.chat_inference()),
    (tensorzero, test_tensorzero.feedback(target_id="t", metric_name="m", value=True)),
    (
        tensorzero,
        test_tensorzero.feedback(inference_id="t", value=json.dumps(test_tensorzero.OUTPUT)),
    ),
    (
        openpipe,
        {"input": test_openpipe.REQUEST, "output": test_openpipe.COMPLETION, "tags": {"a": "b"}},
    ),
    (
        openpipe,
        {
            "messages": [QUESTION, logs.say("Sunny.")],
            "split": "TRAIN",
            "rejected_message": logs.say("No."),
        },
    ),
]

SOURCES = list(dict.fromkeys(source for source, _ in SAMPLES))


def of_its_own_span(value: dict[str, Json], number: int) -> dict[str, Json]:
    """Give a record a span that no other has: one span's log records are otherwise one call."""
    text = json.dumps(value).replace(test_otlp.SPAN_ID, f"{number:016x}")
    return cast("dict[str, Json]", json.loads(text))
