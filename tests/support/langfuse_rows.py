"""Write rows of Langfuse's exports."""

import json

from components.schema import Json

MESSAGES: list[Json] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
]


def observation(**changes: Json) -> dict[str, Json]:
    """Write a row of ``observations_v2`` as the blob storage export has it."""
    row: dict[str, Json] = {
        "id": "obs-1",
        "trace_id": "trace-1",
        "project_id": "p",
        "environment": "production",
        "type": "GENERATION",
        "parent_observation_id": "",
        "start_time": "2025-10-09 08:53:20.250000",
        "end_time": "2025-10-09 08:53:21.000000",
        "name": "forecast",
        "metadata": {"tenant": "a"},
        "level": "DEFAULT",
        "status_message": "",
        "version": "",
        "input": json.dumps(MESSAGES),
        "output": json.dumps({"role": "assistant", "content": "Sunny."}),
        "provided_model_name": "gpt-4o-mini",
        "model_parameters": '{"temperature":0.7}',
        "usage_details": {"input": 20, "output": 3, "total": 23},
        "cost_details": {},
        "tool_calls": [],
        "tool_call_names": [],
        "tool_definitions": {},
        "user_id": "u-7",
        "session_id": "s-1",
        "trace_name": "chat",
        "tags": [],
    }
    return row | changes


def score(**changes: Json) -> dict[str, Json]:
    """Write a row of ``scores`` as the blob storage export has it."""
    row: dict[str, Json] = {
        "id": "score-1",
        "timestamp": "2025-10-09 09:00:00.000000",
        "project_id": "p",
        "environment": "production",
        "trace_id": "trace-1",
        "observation_id": "obs-1",
        "session_id": None,
        "dataset_run_id": None,
        "name": "helpfulness",
        "value": 0.9,
        "source": "ANNOTATION",
        "comment": "Clear.",
        "data_type": "NUMERIC",
        "string_value": None,
        "author_user_id": "ann",
    }
    return row | changes
