"""Write rows of Helicone's export, as its API and its store of bodies have them."""

from components.schema import Json
from tests.support import openai_completions

NOT_EXPORTED: Json = {
    "helicone_message": "fetching body from signed_url... contact engineering@helicone.ai for more "
    "information"
}


def row(**changes: Json) -> dict[str, Json]:
    """Write a row with its bodies."""
    value: dict[str, Json] = {
        "response_id": "5a1f0ad0-6d6c-4d7e-9d3e-3a4a4a0f7b11",
        "response_created_at": "2025-10-09 08:53:21.000",
        "response_body": openai_completions.completion(),
        "response_status": 200,
        "request_id": "0c9d1b8e-7b57-4d5e-9f6b-5d1d0a2f6c22",
        "request_created_at": "2025-10-09 08:53:20.250",
        "request_body": openai_completions.REQUEST,
        "request_path": "https://api.openai.com/v1/chat/completions",
        "request_user_id": "u-7",
        "request_properties": {"Helicone-Session-Id": "s-1", "team": "shoes"},
        "request_model": "gpt-4o-mini",
        "provider": "OPENAI",
        "delay_ms": 750,
        "total_tokens": 23,
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "scores": {},
        "properties": {"Helicone-Session-Id": "s-1", "team": "shoes"},
        "updated_at": "2025-10-09 09:00:00.000",
        "signed_body_url": "https://s3.amazonaws.com/bodies/a",
        "cost": 0.0001,
    }
    return value | changes
