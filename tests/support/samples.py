"""One good record or more of every source, for tests that go through all of them."""

import json
from typing import cast

from components.collect.source import Source
from components.collect.sources import openai_logs
from components.extensions.sources import (
    bedrock,
    braintrust,
    helicone,
    kong,
    langfuse,
    langsmith,
    litellm,
    mlflow_traces,
    openai_finetuning,
    openpipe,
    otlp,
    sharegpt,
    tensorzero,
    vertex,
    weave,
)
from components.schema import Json
from tests.components.extensions.sources import (
    test_kong,
    test_mlflow_traces,
    test_openpipe,
    test_otlp_langsmith,
    test_otlp_mlflow,
    test_sharegpt,
    test_weave,
)
from tests.support import (
    bedrock_logs,
    braintrust_spans,
    gemini_bodies,
    helicone_rows,
    langfuse_rows,
    langsmith_rows,
    litellm_payloads,
    logs,
    openai_completions,
    otlp_requests,
    tensorzero_rows,
)

QUESTION: Json = {"role": "user", "content": "What is the weather in Rome?"}

SAMPLES: list[tuple[Source, dict[str, Json]]] = [
    (
        openai_logs,
        {"request": openai_completions.REQUEST, "response": openai_completions.completion()},
    ),
    (
        openai_logs,
        {"request": openai_completions.REQUEST, "response": [*openai_completions.CALLING]},
    ),
    (
        openai_logs,
        {"request": {"prompt": "Rome?"}, "response": openai_completions.text_completion("Sunny.")},
    ),
    (openai_logs, {"request": gemini_bodies.ASKED, "response": gemini_bodies.answered()}),
    (openai_logs, openai_completions.completion(messages=[QUESTION], metadata={"a": "b"})),
    (
        openai_logs,
        {
            "request": {"model": "gpt-5", "input": "Rome?", "instructions": "Be brief."},
            "response": openai_completions.RESPONSE.model_dump(mode="json"),
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
    (sharegpt, test_sharegpt.CALLING),
    (sharegpt, test_sharegpt.CHOSEN),
    (sharegpt, {"messages": [QUESTION, logs.say("Sunny.")], "label": True}),
    (
        otlp,
        otlp_requests.span(
            otlp_requests.text("gen_ai.input.messages", json.dumps(otlp_requests.ASKED)),
            otlp_requests.attribute(
                "gen_ai.output.messages", otlp_requests.typed(otlp_requests.ANSWERED)
            ),
            otlp_requests.text("gen_ai.response.id", "chatcmpl-1"),
            otlp_requests.attribute("gen_ai.usage.input_tokens", {"intValue": "52"}),
        ),
    ),
    (
        otlp,
        otlp_requests.span(
            otlp_requests.text("gen_ai.prompt.0.content", "Rome?"),
            otlp_requests.text("gen_ai.completion.0.content", "Sunny."),
            otlp_requests.text("llm.request.functions.0.name", "weather"),
        ),
    ),
    (
        otlp,
        {
            "resourceLogs": [
                otlp_requests.log(name, body)["resourceLogs"][0]  # pyright: ignore
                for name, body in otlp_requests.OLDER
            ]
        },
    ),
    (
        otlp,
        otlp_requests.log(
            "gen_ai.evaluation.user_feedback",
            {"comment": "Fine."},
            otlp_requests.attribute("gen_ai.evaluation.score", {"doubleValue": 0.5}),
        ),
    ),
    (
        otlp,
        test_otlp_langsmith.run(
            {"messages": [[test_otlp_langsmith.message("human", content="Rome?")]]},
            test_otlp_langsmith.generated(test_otlp_langsmith.message("ai", content="Sunny.")),
        ),
    ),
    (
        otlp,
        test_otlp_mlflow.exported(
            spanInputs={"messages": [QUESTION], "tools": [logs.WEATHER]}, spanOutputs="Sunny."
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
    (langfuse, langfuse_rows.observation(tool_definitions={"weather": "{}"})),
    (langfuse, langfuse_rows.score()),
    (langfuse, langfuse_rows.score(data_type="CORRECTION", value='{"content": "Rainy."}')),
    (weave, test_weave.call()),
    (kong, test_kong.entry()),
    (litellm, litellm_payloads.payload()),
    (litellm, litellm_payloads.spend_log()),
    (bedrock, bedrock_logs.invocation()),
    (vertex, gemini_bodies.logged()),
    (helicone, helicone_rows.row(scores={"helicone-score-feedback": "1"})),
    (braintrust, braintrust_spans.span(scores={"correct": 1}, expected="Rain.")),
    (braintrust, braintrust_spans.root()),
    (braintrust, {"events": [braintrust_spans.span()], "cursor": None}),
    (helicone, {"data": [helicone_rows.row()], "error": None}),
    (langsmith, langsmith_rows.run()),
    (langsmith, langsmith_rows.run(feedback_stats={"score": {"n": 1, "avg": 1.0}})),
    (langsmith, langsmith_rows.feedback()),
    (tensorzero, tensorzero_rows.chat_inference()),
    (tensorzero, tensorzero_rows.feedback(target_id="t", metric_name="m", value=True)),
    (
        tensorzero,
        tensorzero_rows.feedback(inference_id="t", value=json.dumps(tensorzero_rows.OUTPUT)),
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
    text = json.dumps(value).replace(otlp_requests.SPAN_ID, f"{number:016x}")
    return cast("dict[str, Json]", json.loads(text))
