"""An attacker gains at most a capped share."""

from pathlib import Path

import pytest

from tests.support import vote_attacks
from tests.support.vote_attacks import Outcome


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder: Path = tmp_path_factory.mktemp("attacks")
    return {outcome.name: outcome for outcome in vote_attacks.outcomes(folder)}


@pytest.mark.parametrize("name", ["flood", "drip"])
@pytest.mark.slow
def test_one_actor_with_500_thumbs_is_held_to_the_cap(outcomes: dict[str, Outcome], name: str):
    assert outcomes[name].share_before > 0.5
    assert outcomes[name].share_after <= outcomes[name].cap == 0.1
    lost = outcomes[name].disliked - outcomes["none"].disliked
    assert lost <= 0.1 / 0.9 * vote_attacks.SIGNALS


def test_a_flood_is_found_and_shown(outcomes: dict[str, Outcome]):
    (burst,) = outcomes["flood"].evidence
    assert (burst["kind"], burst["actors"], burst["found"]) == ("flood", 1, 500)
    assert burst["held_back"] == 500 - 30
    assert not outcomes["drip"].evidence


def test_fifty_coordinated_new_actors_change_nothing(outcomes: dict[str, Outcome]):
    attacked = outcomes["brigade"]
    assert attacked.share_before > 0.25
    assert attacked.share_after == 0
    assert attacked.disliked == outcomes["none"].disliked
    (burst,) = attacked.evidence
    assert (burst["kind"], burst["actors"], burst["found"]) == ("brigade", 50, 50)
    assert burst["held_back"] == 150
    assert burst["aim"] == "direction bad"
    assert attacked.held_back == 150


def test_an_honest_month_has_no_bursts(outcomes: dict[str, Outcome]):
    assert outcomes["none"].evidence == []
    assert outcomes["none"].held_back == 0
