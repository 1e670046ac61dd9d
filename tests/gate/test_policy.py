"""What a policy can ask for, and what it refuses."""

import pytest
from pydantic import ValidationError

from components.gate.policy import Policy


@pytest.mark.parametrize(
    "knobs",
    [
        {"alpha": 0},
        {"floor": 1.5},
        {"min_documents": 0},
        {"metric": ""},
        {"alfa": 0.1},
        {"looks": 0},
        {"guards": [{"metric": "name"}]},
        {"guards": [{"metric": "name", "margin": -0.1}]},
        {"guards": [{"metric": "name", "margin": 0.1, "anchor_margin": 1.1}]},
        {"abstention_margin": None, "abstention_anchor_margin": 0.1},
        {"metric": "accuracy", "abstention_anchor_margin": 0.1},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(knobs: dict[str, object]):
    with pytest.raises(ValidationError):
        Policy.model_validate(knobs)


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        pytest.param(
            [{"metric": "abstention", "margin": 0.2}],
            "abstention of holdout has more than one margin",
            id="beside-the-abstention-margin",
        ),
        pytest.param(
            [{"metric": "correct_name", "margin": 0.2}],
            "correct_name is the target, which must get better",
            id="the-target",
        ),
    ],
)
def test_a_figure_is_guarded_once_and_never_the_target(guards: list[object], said: str):
    with pytest.raises(ValidationError, match=said):
        Policy.model_validate({"guards": guards})
