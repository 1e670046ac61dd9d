"""Whoever has MLflow's login does not choose with whom a challenger is compared."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.register import registry, version_tags
from components.release import champions, releases
from components.release.releases import NotApprovedError
from components.release.rollback_rules import Order
from flows import promotion, release_home, turn
from tests.support.approved_versions import ApprovedVersions, approved_versions

NAME = "support"


def adapter_of(made: ApprovedVersions, number: int) -> Path:
    return made.home.adapters / NAME / f"ada{number:013d}"


def _another_adapter(made: ApprovedVersions) -> None:
    registry.tag_version(NAME, "1", {version_tags.ADAPTER_TAG: adapter_of(made, 2).name})


def _another_alias(made: ApprovedVersions) -> None:
    registry.put_alias(NAME, version_tags.CHAMPION, "2")


@pytest.mark.parametrize(
    ("forge", "named"),
    [
        pytest.param(
            _another_adapter, "tag flywheel.adapter of version 1 of support says", id="tag"
        ),
        pytest.param(
            _another_alias,
            "`champion` of support stands on version 2, but",
            id="alias",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_turn_and_a_promotion_take_the_recorded_champion_only(
    tmp_path: Path, forge: Callable[[ApprovedVersions], None], named: str
):
    with approved_versions(tmp_path, is_served=False) as made:
        made.register(NAME, 1)
        made.register(NAME, 2, is_approved=False)
        evidence = made.ask(NAME, 3, opponent="1")
        decision, workload = made.approve(evidence), made.described(NAME)
        forge(made)
        with pytest.raises(NotApprovedError, match=named):
            turn.evaluate_models(workload, made.base.parent / "5af1", {}, adapter_of(made, 3))
        with pytest.raises(NotApprovedError, match=named):
            promotion.promote_version(workload, evidence, decision, lambda: None)


def test_a_moved_alias_is_named_with_the_command_that_puts_it_back(tmp_path: Path):
    with approved_versions(tmp_path, is_served=False) as made:
        made.register(NAME, 1)
        made.register(NAME, 2, is_approved=False)
        _another_alias(made)
        named = f"somebody moved it; `flywheel rollback {NAME} --to 1` puts it back$"
        with pytest.raises(NotApprovedError, match=named):
            releases.recorded_champion(release_home.of(made.home), NAME)
        champions.roll_back(release_home.of(made.home), Order(NAME, "1", "ada", "it was moved"))
        champion = releases.recorded_champion(release_home.of(made.home), NAME)
        assert champion is not None
        assert champion.number == "1"


def test_a_champion_that_was_deleted_is_named_with_what_brings_one_back(tmp_path: Path):
    """The command that was named instead could not put back what is gone."""
    with approved_versions(tmp_path, is_served=False) as made:
        made.register(NAME, 1)
        made.register(NAME, 2)
        MlflowClient().delete_model_version(NAME, "2")
        named = f"version 2 was deleted from MLflow; .* `flywheel rollback {NAME} --to 1`$"
        with pytest.raises(NotApprovedError, match=named):
            releases.recorded_champion(release_home.of(made.home), NAME)
        champions.roll_back(release_home.of(made.home), Order(NAME, "1", "ada", "it was deleted"))
        champion = releases.recorded_champion(release_home.of(made.home), NAME)
        assert champion is not None
        assert champion.number == "1"
