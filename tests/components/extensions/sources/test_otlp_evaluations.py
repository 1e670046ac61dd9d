"""Feedback in OpenTelemetry's evaluation events."""

from components.collect.source import ParsedRecord
from components.extensions.sources import otlp
from tests.support.otlp_requests import SPAN_ID, attribute, log, text
from tests.support.source_reading import read


def test_user_feedback_is_a_rating_and_an_evaluation_an_outcome():
    stars = log(
        "gen_ai.evaluation.user_feedback",
        {"comment": "Fine."},
        text("gen_ai.response.id", "chatcmpl-1"),
        attribute("gen_ai.evaluation.score", {"doubleValue": 0.5}),
        text("enduser.id", "u-7"),
    )
    judged = log(
        "gen_ai.evaluation.result",
        None,
        text("gen_ai.evaluation.name", "relevance"),
        text("gen_ai.evaluation.score.label", "relevant"),
        text("gen_ai.evaluation.explanation", "On topic."),
    )
    rating, outcome = read(otlp, stars, judged)
    assert isinstance(rating, ParsedRecord)
    assert isinstance(outcome, ParsedRecord)
    assert rating.kind == outcome.kind == "feedback"
    assert rating.record == {
        "timestamp": 1_760_000_000.5,
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "u-7",
        "kind": "rating",
        "value": 0.5,
        "response_id": "chatcmpl-1",
        "scale": [-1, 1],
        "comment": "Fine.",
    }
    assert outcome.record == {
        "timestamp": 1_760_000_000.5,
        "workload_id": "support",
        "client_id": "shop",
        "actor_id": "unknown",
        "kind": "outcome",
        "value": {"name": "relevance", "value": "relevant"},
        "response_id": SPAN_ID,
        "comment": "On topic.",
    }
