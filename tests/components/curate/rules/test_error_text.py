"""Error messages instead of an answer are found; text about errors is not."""

import pytest

from components.curate.rules.bad_answers import error_text
from tests.support.curated_rows import answered

PYTHON = 'Traceback (most recent call last):\n  File "app.py", line 3, in <module>\nKeyError: 1'
JAVA = "java.lang.NullPointerException: x\n    at com.example.App.main(App.java:3)"


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        pytest.param(PYTHON, "stack trace", id="python"),
        pytest.param(f"```\n{PYTHON}\n```", "stack trace", id="fenced"),
        pytest.param(JAVA, "stack trace", id="java"),
        pytest.param("Internal Server Error", "error message", id="500"),
        pytest.param("HTTP 502 Bad Gateway", "error message", id="502"),
        pytest.param("Error: 503 Service Unavailable", "error message", id="503"),
        pytest.param(
            "<html>\n<head><title>504 Gateway Time-out</title></head>", "error message", id="html"
        ),
        pytest.param(
            "Error code: 429 - {'error': {'message': 'Rate limit'}}", "error message", id="client"
        ),
        pytest.param("openai.RateLimitError: slow down", "error message", id="exception"),
        pytest.param(
            "This model's maximum context length is 4097 tokens.", "error message", id="too-long"
        ),
        pytest.param("Connection error occurred", "error message", id="connection"),
        pytest.param("upstream connect error or disconnect/reset", "error message", id="proxy"),
        pytest.param(
            '{"error": {"message": "x", "type": "server_error", "code": null}}',
            "error reply",
            id="openai",
        ),
        pytest.param(
            '{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}',
            "error reply",
            id="anthropic",
        ),
        pytest.param('{"object": "error", "message": "x", "code": 400}', "error reply", id="vllm"),
    ],
)
def test_errors_are_found(text: str, mark: str):
    assert error_text(answered(text)) == mark


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"This happens since the key is missing:\n{PYTHON}", id="explained"),
        pytest.param("An internal server error means that the server failed.", id="defined"),
        pytest.param("502 Bad Gateway means that the server behind failed.", id="code-defined"),
        pytest.param("Internal server errors are usually bugs in the code.", id="plural"),
        pytest.param("Service unavailable (503) tells clients to retry.", id="with-code"),
        pytest.param("TimeoutError is raised after 30 seconds.", id="exception-defined"),
        pytest.param('{"error": "no invoice on this page"}', id="own-format"),
        pytest.param('{"error": null, "total": 12}', id="no-error"),
        pytest.param('{"error": {"message"', id="no-json"),
        pytest.param("{" * 3000, id="deep"),
        pytest.param("500 grams of flour", id="number"),
        pytest.param("", id="none"),
    ],
)
def test_text_about_errors_is_not_an_error(text: str):
    assert error_text(answered(text)) is None
