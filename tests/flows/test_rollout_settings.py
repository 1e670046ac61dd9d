"""The section `serve` of a workload's file is read whole, or each mistake in it is listed."""

from pathlib import Path
from typing import Any

import pytest

from components.extensions.canary.rollout_order import plan_of
from components.serve.rollout_settings import RolloutSettings
from flows import home_workloads
from flows.settings import Settings
from flows.workload_file import read_workload
from tests.support.workload_text import mistakes, write


def test_without_a_section_a_version_becomes_champion_at_once(folder: Path) -> None:
    assert read_workload(write(folder)).serve.canary is None
    assert read_workload(write(folder, serve={"rollout": "immediate"})).serve.canary is None


def test_a_canary_without_settings_begins_with_a_tenth_and_ends_after_a_week(folder: Path) -> None:
    canary = read_workload(write(folder, serve={"rollout": {"canary": {}}})).serve.canary
    assert canary is not None
    assert [(step.share, step.duration) for step in canary.steps] == [(0.1, 86_400), (0.5, None)]
    assert (canary.alpha, canary.margin, canary.deadline_seconds) == (0.05, 2.0, 604_800)
    plan = plan_of(canary, "support", "2", "1")
    assert [plan.share_at(seconds) for seconds in (0, 86_399, 86_400, 700_000)] == [
        0.1,
        0.1,
        0.5,
        0.5,
    ]


@pytest.mark.parametrize(
    ("settings", "learned", "window"),
    [
        pytest.param({}, 7200.0, 7200.0, id="learned"),
        pytest.param({}, None, 86_400.0, id="nothing-learned"),
        pytest.param({}, 1e6, 302_400.0, id="half-of-the-deadline-at-most"),
        pytest.param({"windows": {"disliked": 1}}, 7200.0, 3600.0, id="set"),
        pytest.param({"windows": {}}, 7200.0, None, id="none"),
    ],
)
def test_dislikes_are_waited_for_as_long_as_the_log_says(
    folder: Path, settings: dict[str, Any], learned: float | None, window: float | None
) -> None:
    canary = read_workload(write(folder, serve={"rollout": {"canary": settings}})).serve.canary
    assert canary is not None
    plan = plan_of(canary, "support", "2", "1", learned)
    assert plan.windows == ({} if window is None else {"disliked": window})


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            {"rollout": "slowly"},
            ["serve.rollout: expected `immediate`, or `canary:` with its settings, found 'slowly'"],
        ),
        (
            {"rollout": {"canary": {"alpha": 0, "margin": 1, "speed": 3}}},
            ["serve.rollout.canary.alpha", "serve.rollout.canary.margin", "no such setting"],
        ),
        (
            {"rollout": {"canary": {"steps": []}}},
            ["serve.rollout.canary: expected 1 to 20 steps, found 0"],
        ),
        (
            {"rollout": {"canary": {"steps": [{"share": 1}, {"share": 0.5, "minutes": 1}]}}},
            ["steps.0.share", "steps.1.minutes: no such setting"],
        ),
        (
            {"rollout": {"canary": {"steps": [{"share": 0.5, "hours": 1, "seconds": 1}]}}},
            ["expected `hours` or `seconds`, found both"],
        ),
        (
            {
                "rollout": {
                    "canary": {
                        "steps": [{"share": 0.5}, {"share": 0.5, "hours": 300}, {"share": 0.6}]
                    }
                }
            },
            [
                "expected rising shares in `steps`, found [0.5, 0.5, 0.6]; expected `hours` or "
                "`seconds` in step 1: only the last may be without; expected a deadline after the "
                "beginning of the last step, 300 h after the start, found 168 h"
            ],
        ),
        ({"shadow": 0.1}, ["`shadow` needs a canary to compare with the champion"]),
        ({"shadow": 1.5, "rollout": {"canary": {}}}, ["serve.shadow"]),
    ],
)
def test_each_mistake_is_listed(
    folder: Path, section: dict[str, object], expected: list[str]
) -> None:
    result = mistakes(write(folder, serve=section))
    assert len(result) == len(expected)
    for mistake, part in zip(result, expected, strict=True):
        assert part in mistake


def test_the_file_as_it_is_at_the_approval_decides(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    home = Settings(tmp_path / "home", 4200, 5000)
    file = write(folder)
    frozen = read_workload(file)
    home_workloads.adopt(home, frozen.workload, file)
    write(folder, serve={"rollout": {"canary": {"margin": 3}}})
    canary = home_workloads.in_force(home, frozen).serve.canary
    assert canary is not None
    assert canary.margin == 3
    again = RolloutSettings.model_validate_json(
        home_workloads.in_force(home, frozen).serve.model_dump_json()
    )
    assert again == home_workloads.in_force(home, frozen).serve
