"""Write runs and feedback as LangSmith exports them."""

from components.schema import Json

RUN = "1a5c6f0e-0000-4000-8000-000000000001"
TRACE = "1a5c6f0e-0000-4000-8000-000000000000"


def serialized(name: str, content: Json, **more: Json) -> Json:
    """Write a message as LangChain serializes it."""
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", name],
        "kwargs": {
            "content": content,
            "additional_kwargs": {},
            "response_metadata": {},
            "type": name.removesuffix("Message").lower(),
            **more,
        },
    }


def generated(message: Json, **more: Json) -> Json:
    """Write the outputs of a chat model of LangChain."""
    generation: Json = {"text": "", "type": "ChatGeneration", "message": message, **more}
    return {"generations": [[generation]], "llm_output": {"model_name": "gpt"}, "type": "LLMResult"}


MESSAGES: list[Json] = [
    serialized("SystemMessage", "Be brief."),
    serialized("HumanMessage", "Weather in Rome?"),
]
ANSWERED = generated(
    serialized("AIMessage", "Sunny.", id="run-1", tool_calls=[], invalid_tool_calls=[]),
    generation_info={"finish_reason": "stop", "logprobs": None},
)


def run(**changes: Json) -> dict[str, Json]:
    """Write a run of a chat model."""
    row: dict[str, Json] = {
        "id": RUN,
        "name": "ChatOpenAI",
        "run_type": "llm",
        "start_time": "2025-10-09T08:53:20.250000",
        "end_time": "2025-10-09T08:53:21.000000",
        "extra": {
            "invocation_params": {
                "_type": "openai-chat",
                "model": "gpt-4o-mini",
                "model_name": "gpt-4o-mini",
                "temperature": 0.7,
                "stop": None,
            },
            "metadata": {"ls_model_name": "gpt-4o-mini", "thread_id": "s-1", "user_id": "u-7"},
        },
        "error": None,
        "events": [],
        "inputs": {"messages": [MESSAGES]},
        "outputs": ANSWERED,
        "parent_run_id": TRACE,
        "tags": ["beta"],
        "session_id": "00000000-0000-4000-8000-000000000009",
        "feedback_stats": None,
        "status": "success",
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "trace_id": TRACE,
        "dotted_order": "20251009T085320250000Z",
    }
    return row | changes


def feedback(**changes: Json) -> dict[str, Json]:
    """Write a row of feedback."""
    row: dict[str, Json] = {
        "id": "1a5c6f0e-0000-4000-8000-00000000000f",
        "created_at": "2025-10-09T09:00:00",
        "modified_at": "2025-10-09T09:00:00",
        "run_id": RUN,
        "trace_id": TRACE,
        "key": "user_score",
        "score": 1,
        "value": None,
        "comment": None,
        "correction": None,
        "feedback_source": {"type": "api", "metadata": None, "user_id": None},
    }
    return row | changes
