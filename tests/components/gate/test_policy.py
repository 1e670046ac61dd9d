"""Valid and invalid policies, and their changes."""

import pytest
from pydantic import ValidationError

from components.gate.policy import Guard, Policy, changes


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
    ],
)
def test_an_invalid_policy_is_rejected(knobs: dict[str, object]):
    with pytest.raises(ValidationError):
        Policy.model_validate(knobs)


@pytest.mark.parametrize(
    ("guards", "message"),
    [
        pytest.param(
            [{"metric": "abstention", "margin": 0.2}],
            "abstention of holdout has more than one margin",
            id="beside-the-abstention-margin",
        ),
        pytest.param(
            [{"metric": "correct_name", "margin": 0.2}],
            "correct_name is the target, which must improve",
            id="the-target",
        ),
    ],
)
def test_a_figure_is_guarded_once_and_never_the_target(guards: list[object], message: str):
    with pytest.raises(ValidationError, match=message):
        Policy.model_validate({"guards": guards})


def test_changes_have_the_files_names():
    before = Policy(guards=(Guard(metric="name", margin=0.1),)).to_json()
    now = Policy(metric="correct", looks=3, abstention_margin=None).to_json()
    assert changes(before, now) == (
        "abstention_margin: 0.1, now null",
        "looks: null, now 3",
        "margin on name of holdout: 0.1, now not asked",
        "metric: correct_name, now correct",
    )
